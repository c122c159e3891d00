//! Encodings as the GNU assembler has them.

use super::*;
use Register::*;

fn bytes(write: impl FnOnce(&mut Assembler)) -> Vec<u8> {
    let mut assembler = Assembler::default();
    write(&mut assembler);
    assembler.into_bytes()
}

fn at(base: Register, offset: i32) -> Place {
    Place { base, offset }
}

#[test]
fn vectors_are_cleared() {
    let code = bytes(|code| code.clear(Vector(9)));
    assert_eq!(code, [0x62, 0x51, 0x35, 0x48, 0xef, 0xc9]);
    let code = bytes(|code| code.clear(Vector(27)));
    assert_eq!(code, [0x62, 0x01, 0x25, 0x40, 0xef, 0xdb]);
}

#[test]
fn vectors_are_loaded_and_stored_near_and_far() {
    let code = bytes(|code| code.load(Vector(30), at(Rsi, -8192)));
    assert_eq!(code, [0x62, 0x61, 0x7c, 0x48, 0x10, 0x76, 0x80]);
    let code = bytes(|code| code.load(Vector(5), at(R11, 8128)));
    assert_eq!(code, [0x62, 0xd1, 0x7c, 0x48, 0x10, 0x6b, 0x7f]);
    let code = bytes(|code| code.load(Vector(17), at(R8, 8192)));
    assert_eq!(code[..6], [0x62, 0xc1, 0x7c, 0x48, 0x10, 0x88]);
    assert_eq!(code[6..], 8192_i32.to_le_bytes());
    let code = bytes(|code| code.store(Vector(20), at(Rdx, 64)));
    assert_eq!(code, [0x62, 0xe1, 0x7c, 0x48, 0x11, 0x62, 0x01]);
}

#[test]
fn vectors_are_multiplied_and_added() {
    let code = bytes(|code| code.multiply_add_float(Vector(3), Vector(29), at(Rax, -512)));
    assert_eq!(code, [0x62, 0xf2, 0x15, 0x50, 0xb8, 0x58, 0x80]);
    let code = bytes(|code| code.multiply_add_float(Vector(26), Vector(8), at(R9, 508)));
    assert_eq!(code, [0x62, 0x42, 0x3d, 0x58, 0xb8, 0x51, 0x7f]);
    let code = bytes(|code| code.multiply_add(Vector(3), Vector(29), Vector(31)));
    assert_eq!(code, [0x62, 0x92, 0x15, 0x40, 0xb8, 0xdf]);
    let code = bytes(|code| code.multiply_add(Vector(26), Vector(8), Vector(19)));
    assert_eq!(code, [0x62, 0x22, 0x3d, 0x48, 0xb8, 0xd3]);
}

#[test]
fn results_are_made_of_sums() {
    let code = bytes(|code| code.load_float(Vector(31), at(Rdi, 0x30)));
    assert_eq!(code, [0x62, 0x62, 0x7d, 0x48, 0x18, 0x7f, 0x0c]);
    let code = bytes(|code| code.add_float(Vector(27), at(R8, 508)));
    assert_eq!(code, [0x62, 0x41, 0x24, 0x50, 0x58, 0x58, 0x7f]);
    let code = bytes(|code| code.raise(Vector(9), Vector(31), Lanes::All));
    assert_eq!(code, [0x62, 0x51, 0x04, 0x40, 0x5f, 0xc9]);
    let code = bytes(|code| code.raise(Vector(20), Vector(28), Lanes::Compared));
    assert_eq!(code, [0x62, 0xa1, 0x1c, 0xc1, 0x5f, 0xe4]);
    let code = bytes(|code| code.compare_less(Vector(6), at(R9, 64)));
    assert_eq!(code, [0x62, 0xd1, 0x4c, 0x48, 0xc2, 0x49, 0x01, 0x01]);
    let code = bytes(|code| code.stream(Vector(20), at(Rdx, 64)));
    assert_eq!(code, [0x62, 0xe1, 0x7c, 0x48, 0x2b, 0x62, 0x01]);
}

#[test]
fn registers_are_loaded_and_added() {
    let code = bytes(|code| code.load_register(R9, at(Rdi, 24)));
    assert_eq!(code, [0x4c, 0x8b, 0x8f, 24, 0, 0, 0]);
    let code = bytes(|code| code.add(R8, 0x4000));
    assert_eq!(code, [0x49, 0x81, 0xc0, 0x00, 0x40, 0x00, 0x00]);
    let code = bytes(|code| code.add_register(Rsi, Rax));
    assert_eq!(code, [0x48, 0x01, 0xc6]);
    let code = bytes(|code| code.add_register(R10, R9));
    assert_eq!(code, [0x4d, 0x01, 0xca]);
}

#[test]
fn memory_is_asked_for() {
    let code = bytes(|code| code.prefetch(at(Rcx, 0x140)));
    assert_eq!(code, [0x0f, 0x18, 0x89, 0x40, 0x01, 0x00, 0x00]);
    let code = bytes(|code| code.prefetch(at(Rdi, 0x140)));
    assert_eq!(code, [0x0f, 0x18, 0x8f, 0x40, 0x01, 0x00, 0x00]);
}

#[test]
fn jumps_lead_to_an_address_in_memory() {
    let code = bytes(|code| code.jump_through(at(Rdi, 0x138)));
    assert_eq!(code, [0xff, 0xa7, 0x38, 0x01, 0x00, 0x00]);
}

#[test]
fn jumps_lead_over_what_is_between() {
    let code = bytes(|code| {
        let jump = code.jump();
        code.ret();
        code.land(jump);
        code.ret();
    });
    let ret = [0xc5, 0xf8, 0x77, 0xc3];
    assert_eq!(code, [&[0xe9, 4, 0, 0, 0][..], &ret, &ret].concat());
}
