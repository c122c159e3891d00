//! Multiplies two matrices with the kernels alone, without tensors or networks.
//!
//! `cargo run --release -p taskweave-kernels --example gemm`

use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};

fn main() {
    // The fastest instruction set of this machine, or the one that TASKWEAVE_ISA names.
    let set = match dispatch::from_env() {
        Ok(set) => set,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };

    // a is 2×3, row-major; b is 3×2 and stored by columns, as the transpose of a row-major 2×3.
    let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let b = [1.0, 0.0, -1.0, 2.0, 2.0, 2.0];

    // c = 2 · a · b + c
    let mut c = [10.0, 10.0, 10.0, 10.0];
    let product = Gemm {
        m: 2,
        n: 2,
        k: 3,
        alpha: 2.0,
        a: Matrix::row_major(&a, 3),
        b: Matrix::row_major(&b, 3).transposed(),
        beta: 1.0,
    };
    // Rows of c lie two floats apart, its columns one.
    gemm(set, &product, &mut c, [2, 1]);

    assert_eq!(c, [6.0, 34.0, 6.0, 70.0]);
    println!("{c:?} on {}", set.name());
}
