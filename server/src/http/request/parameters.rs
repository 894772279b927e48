//! Parameters as text, from the query, the parts of a form or the fields of a JSON object.

use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use super::RequestError;
use crate::serving::CpuPool;
use densecl_vision::features::PixelPoint;

/// Limit of the parameters of a request; no route has as many.
const MAX_COUNT: usize = 64;
/// Bytes of a point as text: `[x, y]` with all digits of a double.
const POINT_BYTES: usize = 64;
/// Parameters up to this size are parsed on the thread that serves the connection.
const READ_INLINE_BYTES: usize = 16 << 10;
/// Bytes of all other parameters together.
const OTHER_BYTES: usize = 64 << 10;

/// Unparsed names and values. A parameter may be given once, in the query or in the body.
#[derive(Clone, Debug)]
pub(in crate::http) struct Parameters {
    pairs: Vec<(String, String)>,
    bytes: usize,
    max_bytes: usize,
}

impl Parameters {
    /// Creates an empty list whose size limit has room for `max_points` points.
    pub(in crate::http) fn new(max_points: usize) -> Self {
        let max_bytes = max_points.saturating_mul(POINT_BYTES).saturating_add(OTHER_BYTES);
        Self { pairs: Vec::new(), bytes: 0, max_bytes }
    }

    /// Adds the parameters of a query.
    pub(in crate::http) fn push_query(&mut self, query: Option<&str>) -> Result<(), RequestError> {
        form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .try_for_each(|(name, value)| self.push(name.into_owned(), value.into_owned()))
    }

    /// Adds a parameter. An empty value, as browsers send for a blank field, counts as not given.
    pub(in crate::http) fn push(&mut self, name: String, value: String) -> Result<(), RequestError> {
        self.check_room(&name, value.len())?;
        self.bytes += name.len() + value.len();
        self.pairs.push((name, value));
        Ok(())
    }

    /// Refuses another parameter whose value has `bytes` if a limit would be exceeded.
    pub(in crate::http) fn check_room(&self, name: &str, bytes: usize) -> Result<(), RequestError> {
        if self.pairs.len() == MAX_COUNT {
            return Err(RequestError::TooManyParameters { limit: MAX_COUNT });
        }
        if self.bytes.saturating_add(name.len()).saturating_add(bytes) > self.max_bytes {
            return Err(RequestError::ParametersTooLarge { name: name.to_owned(), limit: self.max_bytes as u64 });
        }
        Ok(())
    }

    /// Removes and returns all values of a parameter that may be repeated, in their order.
    pub(in crate::http) fn take_all(&mut self, name: &str) -> Vec<String> {
        let taken = self.pairs.extract_if(.., |(own, _)| own == name);
        taken.map(|(_, value)| value).filter(|value| !value.is_empty()).collect()
    }

    /// Runs `read`, on the CPU pool if the parameters are large: ten thousand points take milliseconds.
    pub(in crate::http) async fn read_with<T: Send + 'static>(
        self,
        cpu: &CpuPool,
        read: impl FnOnce(&Self) -> Result<T, RequestError> + Send + 'static,
    ) -> Result<T, RequestError> {
        if self.bytes <= READ_INLINE_BYTES {
            return read(&self);
        }
        cpu.run(move || read(&self)).await?
    }

    /// Names and values in their order.
    pub(in crate::http) fn as_slice(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Deserializes the parameters as the fields of `T`.
    pub(in crate::http) fn read<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        let given = self.pairs.iter().filter(|(_, value)| !value.is_empty());
        let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
        serde_path_to_error::deserialize(pairs).map_err(|error| {
            let name = error.path().to_string();
            let reason = error.into_inner().to_string();
            if let Some(name) = reason.strip_prefix("duplicate field ") {
                let reason = "it is given more than once".to_owned();
                return RequestError::MalformedParameter { name: name.trim_matches('`').to_owned(), reason };
            }
            match reason.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
                Some((name, expected)) => RequestError::UnknownParameter {
                    name: name.trim_matches('`').to_owned(),
                    expected: expected.to_owned(),
                },
                None => RequestError::MalformedParameter { name, reason },
            }
        })
    }
}

/// Reads `true` or `false`, also as `True` or `False`, which Python clients send.
pub(in crate::http) fn read_flag<'de, D: Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    let text = String::deserialize(value)?;
    match text.as_str() {
        "true" | "True" => Ok(Some(true)),
        "false" | "False" => Ok(Some(false)),
        _ => Err(D::Error::custom(format!("`{text}` is not `true` or `false`"))),
    }
}

/// Parses a parameter by its [`FromStr`].
pub(in crate::http) fn read_text<T: FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, RequestError> {
    let read = |text: &str| {
        text.parse().map_err(|error: T::Err| RequestError::MalformedParameter {
            name: name.to_owned(),
            reason: format!("`{text}` is {error}"),
        })
    };
    text.map(read).transpose()
}

/// Reads `[[x, y], …]`, at most `limit` of them.
pub(in crate::http) fn read_points(text: &str, limit: usize) -> Result<Vec<PixelPoint>, RequestError> {
    let points: Vec<[f64; 2]> = serde_json::from_str(text).map_err(|error| {
        // JSON has no such numbers, but Python's `json` writes them.
        if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
            RequestError::PointNotFinite
        } else {
            RequestError::MalformedParameter {
                name: "points".to_owned(), reason: format!("not [[x, y], …]: {error}")
            }
        }
    })?;
    if points.is_empty() {
        let reason = "there is no point in it".to_owned();
        return Err(RequestError::MalformedParameter { name: "points".to_owned(), reason });
    }
    if points.len() > limit {
        return Err(RequestError::TooManyPoints { count: points.len(), limit });
    }
    Ok(points.into_iter().map(PixelPoint::from).collect())
}

/// Schema of a parameter that takes one of `words`, the first by default.
pub(in crate::http) fn word_schema(words: &[&str]) -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(words.iter().copied()))
        .default(words.first().map(|&word| word.into()))
        .into()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        side: Option<u64>,
        layer: Option<String>,
        #[serde(default, deserialize_with = "read_flag")]
        mutual: Option<bool>,
    }

    fn read(query: &str) -> Result<Sample, RequestError> {
        let mut parameters = Parameters::new(1);
        parameters.push_query(Some(query))?;
        parameters.read()
    }

    #[test]
    fn names_and_values_are_read() {
        let sample = read("side=512&layer=res3%2Bres4").unwrap();
        assert_eq!((sample.side, sample.layer.as_deref()), (Some(512), Some("res3+res4")));
        let blank = read("side=&layer=").unwrap();
        assert_eq!((blank.side, blank.layer), (None, None));
    }

    #[test]
    fn errors_name_the_wrong_parameter() {
        let Err(RequestError::MalformedParameter { name, .. }) = read("layer=res3&side=-1") else {
            panic!("-1 is a side")
        };
        assert_eq!(name, "side");
        let Err(RequestError::UnknownParameter { name, expected }) = read("sid=1") else { panic!("sid is known") };
        assert_eq!(name, "sid");
        assert!(expected.contains("`side`"), "{expected}");
        assert!(matches!(read("side=1&side=2"), Err(RequestError::MalformedParameter { name, .. }) if name == "side"));
    }

    #[test]
    fn flags_are_read_in_either_case() {
        let flag = |query: &str| read(query).map(|sample| sample.mutual);
        for (query, expected) in [("mutual=true", Some(true)), ("mutual=False", Some(false)), ("mutual=", None)] {
            assert_eq!(flag(query).unwrap(), expected, "{query}");
        }
        assert!(matches!(flag("mutual=1"), Err(RequestError::MalformedParameter { name, .. }) if name == "mutual"));
    }

    #[test]
    fn number_and_size_of_parameters_are_bounded() {
        let many = "a=1&".repeat(MAX_COUNT + 1);
        assert!(matches!(read(&many), Err(RequestError::TooManyParameters { limit: MAX_COUNT })));
        let long = format!("layer={}", "x".repeat(OTHER_BYTES + POINT_BYTES));
        let Err(RequestError::ParametersTooLarge { name, .. }) = read(&long) else {
            panic!("{} bytes fit", long.len())
        };
        assert_eq!(name, "layer");
    }

    #[test]
    fn points_are_read() {
        assert_eq!(read_points("[[1, 2.5]]", 1).unwrap(), [PixelPoint { x: 1.0, y: 2.5 }]);
        assert!(matches!(read_points("[[1,2],[3,4]]", 1), Err(RequestError::TooManyPoints { count: 2, limit: 1 })));
        for text in ["[[NaN, 1]]", "[[1, -Infinity]]"] {
            assert!(matches!(read_points(text, 9), Err(RequestError::PointNotFinite)), "{text}");
        }
        for text in ["", "[]", "[1,2]", "[[1]]", "[[1,2,3]]", "[[1e999,0]]", "{}"] {
            assert!(matches!(read_points(text, 9), Err(RequestError::MalformedParameter { .. })), "{text}");
        }
    }
}
