//! Names of a type's fields, as its `Deserialize` knows them.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The names of the fields of a struct that derives `Deserialize`; none for other types.
pub(in crate::http) fn struct_fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // Ends with the error below, once the names are known.
    let _ = T::deserialize(NameReader(&mut fields));
    fields
}

struct NameReader<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for NameReader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(no_value())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(no_value())
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn no_value() -> Error {
    serde::de::Error::custom("only the names are read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "only its name is read")]
        side: u32,
        #[serde(rename = "layers")]
        #[expect(dead_code, reason = "only its name is read")]
        layer: Option<String>,
    }

    #[test]
    fn names_are_those_that_are_read() {
        assert_eq!(struct_fields::<Sample>(), ["side", "layers"]);
        assert!(struct_fields::<u32>().is_empty());
    }
}
