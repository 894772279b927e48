//! Values of an image tensor as JSON numbers, in one flat list or in lists nested by its shape.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// Axes of an image tensor, `[N, H, W, 3]`.
const MAX_AXES: usize = 4;

/// Values of a tensor of bytes.
#[derive(Debug)]
pub(super) struct Pixels {
    /// In row-major order.
    pub(super) bytes: Vec<u8>,
    /// Nesting of the lists.
    extent: Extent,
}

/// Sizes of nested lists, from the outermost inwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    axes: usize,
    sizes: [usize; MAX_AXES],
}

impl Pixels {
    /// True if the values are one flat list, or nested by `shape`.
    pub(super) fn is_nested_as(&self, shape: &[u64]) -> bool {
        let sizes = &self.extent.sizes[..self.extent.axes];
        sizes.len() == 1 || sizes.iter().map(|&size| size as u64).eq(shape.iter().copied())
    }
}

impl<'de> serde::Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = Vec::new();
        let extent = Element(&mut bytes).deserialize(deserializer)?;
        if extent.axes == 0 {
            return Err(D::Error::custom("`data` is a number, not a list of numbers"));
        }
        Ok(Self { bytes, extent })
    }
}

/// Reads a number or a list of elements, and appends the numbers to the bytes.
struct Element<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = Extent;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Extent, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = Extent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 0 to 255, or a list of them")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Extent, E> {
        let byte = u8::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
        self.0.push(byte);
        Ok(Extent::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Extent, A::Error> {
        let mut first = None;
        let mut count = 0;
        while let Some(extent) = elements.next_element_seed(Element(self.0))? {
            if *first.get_or_insert(extent) != extent {
                return Err(A::Error::custom("the lists in `data` are not all equally long"));
            }
            count += 1;
        }
        let inner = first.unwrap_or_default();
        if inner.axes == MAX_AXES {
            return Err(A::Error::custom("the lists in `data` are nested more than four deep"));
        }
        let mut sizes = [count; MAX_AXES];
        sizes[1..].copy_from_slice(&inner.sizes[..MAX_AXES - 1]);
        Ok(Extent { axes: inner.axes + 1, sizes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Pixels, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn flat_and_nested_lists_give_equal_values() {
        let flat = read("[1, 2, 3, 4, 5, 255]").unwrap();
        let nested = read("[[[1, 2, 3], [4, 5, 255]]]").unwrap();
        assert_eq!(flat.bytes, [1, 2, 3, 4, 5, 255]);
        assert_eq!(flat.bytes, nested.bytes);
        assert!(flat.is_nested_as(&[1, 1, 2, 3]) && nested.is_nested_as(&[1, 2, 3]));
        assert!(!nested.is_nested_as(&[2, 1, 3]) && !nested.is_nested_as(&[1, 1, 2, 3]));
    }

    #[test]
    fn values_that_are_not_bytes_are_refused_with_a_reason() {
        for (json, reason) in [
            ("[256]", "0 to 255"),
            ("[-1]", "0 to 255"),
            ("[1.5]", "0 to 255"),
            ("[true]", "0 to 255"),
            ("[null]", "0 to 255"),
            ("[\"7\"]", "0 to 255"),
            ("[1e400]", "out of range"),
            ("[NaN]", "expected value"),
            ("7", "not a list"),
            ("[[1], [2, 3]]", "equally long"),
            ("[1, [2]]", "equally long"),
            ("[[], [1]]", "equally long"),
            ("[[[[[1]]]]]", "four deep"),
            ("[1, 2", "EOF"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
        assert!(read(&"[".repeat(100_000)).is_err(), "depth is bounded");
    }
}
