//! The messages of an ONNX file that are needed here, as `onnx.proto3` of ONNX 1.10 numbers their fields.

use prost::Message;

/// Version of the file's form: that of ONNX 1.10.
pub(super) const IR_VERSION: i64 = 8;

/// Version of the set of operators.
pub(super) const OPSET_VERSION: i64 = 13;

/// `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    Float = 1,
    Uint8 = 2,
}

/// `AttributeProto.AttributeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttributeType {
    Float = 1,
    Int = 2,
    Ints = 7,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) inputs: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) outputs: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, tag = "2")]
    pub(super) float: f32,
    #[prost(int64, tag = "3")]
    pub(super) int: i64,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    attribute_type: i32,
}

impl Attribute {
    pub(super) fn float(name: &str, value: f32) -> Self {
        Self {
            float: value,
            ..Self::of(name, AttributeType::Float)
        }
    }

    pub(super) fn int(name: &str, value: i64) -> Self {
        Self {
            int: value,
            ..Self::of(name, AttributeType::Int)
        }
    }

    pub(super) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Self {
        Self {
            ints: values.into_iter().map(|value| value as i64).collect(),
            ..Self::of(name, AttributeType::Ints)
        }
    }

    fn of(name: &str, attribute_type: AttributeType) -> Self {
        Self {
            name: name.to_owned(),
            attribute_type: attribute_type as i32,
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    /// Little-endian, row-major.
    #[prost(bytes = "vec", tag = "9")]
    pub(super) raw: Vec<u8>,
}

impl Tensor {
    pub(super) fn floats(name: &str, dims: &[usize], values: &[f32]) -> Self {
        Self {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: DataType::Float as i32,
            name: name.to_owned(),
            raw: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    value_type: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "Extent", tags = "1, 2")]
    extent: Option<Extent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Extent {
    #[prost(int64, tag = "1")]
    Known(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

impl ValueInfo {
    /// A value with a row of these dimensions for every image.
    pub(super) fn per_image(name: &str, element: DataType, dims: &[usize]) -> Self {
        let images = Extent::Named("images".to_owned());
        let dims = dims.iter().map(|&dim| Extent::Known(dim as i64));
        let dims = std::iter::once(images).chain(dims);
        let shape = TensorShape {
            dims: dims
                .map(|extent| Dimension {
                    extent: Some(extent),
                })
                .collect(),
        };
        let tensor = TensorType {
            element: element as i32,
            shape: Some(shape),
        };
        Self {
            name: name.to_owned(),
            value_type: Some(ValueType {
                tensor: Some(tensor),
            }),
        }
    }
}
