//! Plain f64 versions of the row-major operations, by index and without any stride tricks.

/// Every index of a shape, in row-major order.
pub(crate) fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
    let mut indices = vec![vec![]];
    for &dim in dims {
        indices = indices
            .iter()
            .flat_map(|index| (0..dim).map(|last| [index.as_slice(), &[last]].concat()))
            .collect();
    }
    indices
}

/// The place of an index in row-major storage; where the shape has size 1 or no axis, it repeats.
pub(crate) fn place(index: &[usize], dims: &[usize]) -> usize {
    let index = &index[index.len() - dims.len()..];
    let axes = index.iter().zip(dims);
    axes.fold(0, |place, (&i, &dim)| {
        place * dim + if dim == 1 { 0 } else { i }
    })
}

/// `function(a, b)` with both broadcast to `dims`.
pub(crate) fn broadcast(
    values: &[Vec<f64>],
    [a, b]: [&[usize]; 2],
    dims: &[usize],
    function: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let element =
        |index: &Vec<usize>| function(values[0][place(index, a)], values[1][place(index, b)]);
    indices(dims).iter().map(element).collect()
}

/// The elements that each element of the reduced tensor stands for.
pub(crate) fn groups(values: &[f64], dims: &[usize], axes: &[usize]) -> Vec<Vec<f64>> {
    let mut reduced = dims.to_vec();
    for &axis in axes {
        reduced[axis] = 1;
    }
    let mut groups = vec![vec![]; reduced.iter().product()];
    for (index, value) in indices(dims).iter().zip(values) {
        groups[place(index, &reduced)].push(*value);
    }
    groups
}

pub(crate) fn transpose(values: &[f64], dims: &[usize], axes: &[usize]) -> Vec<f64> {
    let output: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
    let element = |index: &Vec<usize>| {
        let mut source = vec![0; dims.len()];
        for (&axis, &i) in axes.iter().zip(index) {
            source[axis] = i;
        }
        values[place(&source, dims)]
    };
    indices(&output).iter().map(element).collect()
}

/// The elements whose index lies in `starts..ends` along every axis.
pub(crate) fn slice(values: &[f64], dims: &[usize], starts: &[usize], ends: &[usize]) -> Vec<f64> {
    let inside = |index: &Vec<usize>| {
        (0..dims.len()).all(|axis| (starts[axis]..ends[axis]).contains(&index[axis]))
    };
    let pairs = indices(dims).into_iter().zip(values);
    pairs
        .filter(|(index, _)| inside(index))
        .map(|(_, &value)| value)
        .collect()
}

/// Joins along `axis` by walking the output and asking which input an index falls into.
pub(crate) fn concat(values: &[Vec<f64>], dims: &[Vec<usize>], axis: usize) -> Vec<f64> {
    let mut output = dims[0].clone();
    output[axis] = dims.iter().map(|dims| dims[axis]).sum();
    let element = |mut index: Vec<usize>| {
        let mut input = 0;
        while index[axis] >= dims[input][axis] {
            index[axis] -= dims[input][axis];
            input += 1;
        }
        values[input][place(&index, &dims[input])]
    };
    indices(&output).into_iter().map(element).collect()
}

/// `[..., m, k] · [..., k, n]`, batches broadcast to `batch`.
pub(crate) fn matmul(values: &[Vec<f64>], [a, b]: [&[usize]; 2], batch: &[usize]) -> Vec<f64> {
    let (m, k, n) = (a[a.len() - 2], a[a.len() - 1], b[b.len() - 1]);
    let element = |index: &Vec<usize>| {
        let (outer, inner) = index.split_at(batch.len());
        let term = |p| {
            let at_a = [outer, &[inner[0], p]].concat();
            let at_b = [outer, &[p, inner[1]]].concat();
            values[0][place(&at_a, a)] * values[1][place(&at_b, b)]
        };
        (0..k).map(term).sum()
    };
    indices(&[batch, &[m, n]].concat())
        .iter()
        .map(element)
        .collect()
}
