//! The memory that decoding a file takes, computed before the file is decoded.
//!
//! In protobuf two bytes say "one more attribute", and in memory an attribute takes hundreds: a small file
//! could fill any machine. The walk here goes through the messages as the decoder will, adds up what they
//! become, and takes no memory itself. It also bounds how deep messages lie in one another, and thereby
//! every recursion over graphs inside graphs.

use std::mem::size_of;
use std::ops::Range;

use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorAnnotation, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto,
};

/// Messages inside one another. A graph in a branch of a graph is three deeper; no exporter goes beyond a few.
const MAX_DEPTH: usize = 32;
/// Limit of the memory for nodes, attributes and names. The largest published networks have some ten
/// thousand nodes and need a tenth of it.
const MAX_STRUCTURE_BYTES: u64 = 256 << 20;
/// A list that grows holds up to twice what is in it.
const GROWTH: u64 = 2;

/// Reason why a file is not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// It is not protobuf, or not that of ONNX.
    #[error("byte {position} is not what an ONNX file has there: it is damaged, cut off, or of another kind")]
    Malformed { position: usize },
    #[error("its messages lie more than {MAX_DEPTH} deep in one another: graphs within graphs go to about ten levels")]
    TooDeep,
    #[error(
        "its nodes, attributes and names would take more than {} MiB of memory, which no network needs",
        MAX_STRUCTURE_BYTES >> 20
    )]
    TooMuchStructure,
}

/// Checks that decoding `bytes` takes a bounded amount of memory beyond twice their own.
pub(crate) fn check(bytes: &[u8]) -> Result<(), WireError> {
    let mut walk = Walk { bytes, spent: 0, limit: MAX_STRUCTURE_BYTES + GROWTH * bytes.len() as u64 };
    walk.message(Kind::Model, 0..bytes.len(), 0)
}

/// The messages of an ONNX file.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Annotation,
    ValueInfo,
    Type,
    /// The element type and shape of a tensor.
    TensorType,
    /// A type that is made of another: field 1 of sequences and optionals, 2 of maps.
    ListType,
    MapType,
    Shape,
    Dimension,
    Function,
    OperatorSet,
    Entry,
    Segment,
}

/// Content of a field with a length.
#[derive(Clone, Copy)]
enum Content {
    Message(Kind),
    /// Numbers of a byte or more in the file, and of so many in memory.
    Varints(u64),
    /// Numbers that take in memory what they take in the file.
    Fixed,
    /// Bytes that memory shares with the file.
    Shared,
    /// Text, or a field that is passed over.
    Text,
}

impl Kind {
    fn content(self, field: u64) -> Content {
        use Content::{Fixed, Message, Shared, Text, Varints};
        match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(Self::OperatorSet),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Node, 5) | (Self::Function, 11) => Message(Self::Attribute),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Message(Self::Sparse),
            (Self::Graph, 14) => Message(Self::Annotation),
            (Self::Graph, 11..=13) | (Self::Function, 12) => Message(Self::ValueInfo),
            (Self::Attribute, 14 | 15) | (Self::ValueInfo | Self::MapType, 2) | (Self::ListType, 1) => {
                Message(Self::Type)
            }
            (Self::Type, 1 | 8) => Message(Self::TensorType),
            (Self::Type, 4 | 9) => Message(Self::ListType),
            (Self::Type, 5) => Message(Self::MapType),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Shape, 1) => Message(Self::Dimension),
            (Self::Model | Self::Function, 14)
            | (Self::Graph | Self::Tensor, 16)
            | (Self::Node, 9)
            | (Self::Tensor, 13)
            | (Self::Annotation, 2)
            | (Self::ValueInfo, 4) => Message(Self::Entry),
            (Self::Tensor, 3) => Message(Self::Segment),
            (Self::Tensor, 4 | 10) | (Self::Attribute, 7) => Fixed,
            (Self::Tensor, 5) => Varints(4),
            (Self::Tensor, 1 | 7 | 11) | (Self::Attribute, 8) | (Self::Sparse, 3) => Varints(8),
            (Self::Tensor, 9) => Shared,
            _ => Text,
        }
    }

    /// Bytes of one message in memory, without what it holds.
    fn bytes(self) -> u64 {
        let bytes = match self {
            Self::Model => size_of::<ModelProto>(),
            Self::Graph => size_of::<GraphProto>(),
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Sparse => size_of::<SparseTensorProto>(),
            Self::Annotation => size_of::<TensorAnnotation>(),
            Self::ValueInfo => size_of::<ValueInfoProto>(),
            Self::Type | Self::TensorType | Self::ListType | Self::MapType => size_of::<TypeProto>(),
            Self::Shape => size_of::<TensorShapeProto>(),
            Self::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Self::Function => size_of::<FunctionProto>(),
            Self::OperatorSet => size_of::<OperatorSetIdProto>(),
            Self::Entry => size_of::<StringStringEntryProto>(),
            // A part of its tensor.
            Self::Segment => 0,
        };
        bytes as u64
    }
}

/// A field as the wire has it.
enum Value {
    /// A single number.
    Number,
    /// Position of the content of a field with a length.
    Content(Range<usize>),
}

struct Walk<'a> {
    bytes: &'a [u8],
    spent: u64,
    limit: u64,
}

impl Walk<'_> {
    fn message(&mut self, kind: Kind, place: Range<usize>, depth: usize) -> Result<(), WireError> {
        if depth == MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        self.spend(kind.bytes() * GROWTH)?;
        let mut position = place.start;
        while position < place.end {
            let (field, value) = self.field(&mut position, place.end)?;
            match value {
                Value::Number => self.spend(size_of::<u64>() as u64 * GROWTH)?,
                Value::Content(place) => match kind.content(field) {
                    Content::Message(kind) => self.message(kind, place, depth + 1)?,
                    Content::Varints(bytes) => {
                        let count = self.bytes[place].iter().filter(|byte| **byte < 0x80).count() as u64;
                        self.spend(count * bytes * GROWTH)?;
                    }
                    Content::Fixed => self.spend(place.len() as u64 * GROWTH)?,
                    Content::Shared => {}
                    Content::Text => self.spend(size_of::<String>() as u64 * GROWTH + place.len() as u64)?,
                },
            }
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), WireError> {
        self.spent += bytes;
        if self.spent > self.limit { Err(WireError::TooMuchStructure) } else { Ok(()) }
    }

    /// The field at `position`, which moves behind it.
    fn field(&self, position: &mut usize, end: usize) -> Result<(u64, Value), WireError> {
        let start = *position;
        let malformed = WireError::Malformed { position: start };
        // Fields are numbered from 1 on: this tells a file of zeros at once.
        let key = self.varint(position, end).filter(|key| key >> 3 > 0).ok_or(malformed.clone())?;
        let length = match key & 7 {
            0 => {
                self.varint(position, end).ok_or(malformed)?;
                return Ok((key >> 3, Value::Number));
            }
            1 => 8,
            2 => self.varint(position, end).ok_or(malformed.clone())?,
            5 => 4,
            // ONNX has no groups, and there are no others.
            _ => return Err(malformed),
        };
        let content = *position;
        let behind = usize::try_from(length).ok().and_then(|length| content.checked_add(length));
        *position = behind.filter(|behind| *behind <= end).ok_or(malformed)?;
        let is_number = key & 7 != 2;
        Ok((key >> 3, if is_number { Value::Number } else { Value::Content(content..*position) }))
    }

    fn varint(&self, position: &mut usize, end: usize) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes[..end].get(*position)?;
            *position += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// A field with a length.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
        bytes
    }

    #[test]
    fn many_empty_messages_are_refused_before_they_are_made() {
        // Ten thousand are nothing, a million attributes of two bytes each would be half a gigabyte.
        for (count, expected) in [(10_000, Ok(())), (1_000_000, Err(WireError::TooMuchStructure))] {
            let node = field(1, &field(5, &[]).repeat(count));
            assert_eq!(check(&field(7, &node)), expected, "{count}");
        }
        let names = field(1, &field(1, &[]).repeat(10_000_000));
        assert_eq!(check(&field(7, &names)), Err(WireError::TooMuchStructure));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| (0..levels).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))));
        assert_eq!(check(&field(7, &nested(10))), Ok(()));
        assert_eq!(check(&field(7, &nested(11))), Err(WireError::TooDeep));
        let sequences = (0..100).fold(Vec::new(), |inner, _| field(4, &field(1, &inner)));
        assert_eq!(check(&field(7, &field(11, &field(2, &sequences)))), Err(WireError::TooDeep));
    }

    #[test]
    fn what_is_not_protobuf_is_told_by_its_place() {
        let mut file = field(7, &[]);
        assert_eq!(check(&file), Ok(()));
        file.extend([0x3A, 5, 0]);
        assert_eq!(check(&file), Err(WireError::Malformed { position: 2 }));
        for broken in [&b"\x3B"[..], b"\x3A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", b"<!DOCTYPE html>", &[0; 9]] {
            assert!(matches!(check(broken), Err(WireError::Malformed { .. })), "{broken:?}");
        }
    }

    #[test]
    fn weights_are_free_and_numbers_are_counted() {
        let raw = ModelProto {
            graph: Some(GraphProto {
                initializer: vec![TensorProto { raw_data: Some(vec![7; 1 << 20].into()), ..TensorProto::default() }],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        let file = raw.encode_to_vec();
        let mut walk = Walk { bytes: &file, spent: 0, limit: u64::MAX };
        walk.message(Kind::Model, 0..file.len(), 0).unwrap();
        assert!(walk.spent < 1 << 13, "{}", walk.spent);
        // Sixty-four million zeros in 64 MB, and eight times that in memory.
        let zeros = field(7, &field(5, &field(7, &vec![0; 64 << 20])));
        assert_eq!(check(&zeros), Err(WireError::TooMuchStructure));
    }
}
