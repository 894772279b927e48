//! JSON as clients send it: UTF-8, with or without a byte order mark; errors that say where and what.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// JSON that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Text in another encoding.
    #[error("it is text in {0}, not in UTF-8")]
    Encoding(&'static str),
    /// Bytes that are no text.
    #[error("it is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Bytes before the first wrong one.
        offset: usize,
    },
    /// Text that is not JSON, or JSON of another form.
    #[error("{member}{reason}")]
    Malformed {
        /// The member that is wrong, such as `` `points[3]`:  ``, or nothing.
        member: String,
        /// Description of the fault, with line and column.
        reason: String,
    },
}

impl JsonError {
    /// Advice for the sender.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Encoding(_) | Self::NotUtf8 { .. } => {
                "Send JSON as UTF-8: encoding=\"utf-8\" in Python, Encoding.UTF8 in .NET, \"Save as … UTF-8\" in an editor."
            }
            Self::Malformed { .. } => {
                "Let a library write the JSON: json.dumps in Python, JSON.stringify in JavaScript."
            }
        }
    }

    /// Creates the error of reading `text` that serde reports for the member at `path`.
    fn at(path: Option<&serde_path_to_error::Path>, error: &serde_json::Error, text: &[u8]) -> Self {
        let path = path.map(ToString::to_string).filter(|path| path != ".");
        let member = path.map_or_else(String::new, |path| format!("`{path}`: "));
        let note = mistake(error, text).map_or_else(String::new, |note| format!(": {note}"));
        Self::Malformed { member, reason: format!("{error}{note}") }
    }
}

/// The UTF-8 of a body, without a byte order mark.
///
/// # Errors
/// [`JsonError::Encoding`] for UTF-16 and UTF-32.
pub(in crate::http) fn json_text(body: &[u8]) -> Result<&[u8], JsonError> {
    if let Some(text) = body.strip_prefix(UTF8_MARK) {
        return Ok(text);
    }
    other_encoding(body).map_or(Ok(body), |name| Err(JsonError::Encoding(name)))
}

/// The encoding by the byte order mark, or by where the zeros of the first, ASCII characters are.
pub(super) fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] | [1..=255, 0, 0, 0, ..] => {
            Some("UTF-32")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, 0, ..] | [1..=255, 0, 1..=255, 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// Parses the JSON of a body. Errors name the member that is wrong.
///
/// # Errors
/// [`JsonError`].
pub(in crate::http) fn parse_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, JsonError> {
    let text = json_text(body)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| described(error.inner(), Some(error.path()), text))?;
    reader.end().map_err(|error| described(&error, None, text))?;
    Ok(value)
}

/// Describes an error of reading `text`, and looks for the member in which it is.
pub(super) fn locate(error: &serde_json::Error, text: &[u8]) -> JsonError {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = serde_path_to_error::deserialize::<_, Anything>(&mut reader).err();
    let is_same = |other: &serde_json::Error| (other.line(), other.column()) == (error.line(), error.column());
    match found.filter(|found| is_same(found.inner())) {
        Some(found) => described(found.inner(), Some(found.path()), text),
        None => described(error, None, text),
    }
}

fn described(error: &serde_json::Error, path: Option<&serde_path_to_error::Path>, text: &[u8]) -> JsonError {
    match std::str::from_utf8(text) {
        Err(invalid) if error.classify() == Category::Syntax => JsonError::NotUtf8 { offset: invalid.valid_up_to() },
        _ => JsonError::at(path, error, text),
    }
}

/// The mistake behind a syntax error, if it is a common one.
fn mistake(error: &serde_json::Error, text: &[u8]) -> Option<Cow<'static, str>> {
    if error.classify() != Category::Syntax {
        return None;
    }
    let line = text.split(|&byte| byte == b'\n').nth(error.line().checked_sub(1)?)?;
    let rest = line.get(error.column().saturating_sub(1)..)?;
    let word_length = rest.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
    match &rest[..word_length] {
        b"" if rest.first() == Some(&b'\'') => Some("names and texts stand in double quotes".into()),
        word @ (b"NaN" | b"Infinity" | b"None" | b"True" | b"False" | b"undefined" | b"nan" | b"inf") => {
            Some(format!("JSON has no {}", String::from_utf8_lossy(word)).into())
        }
        _ => None,
    }
}

/// Any JSON, which is read and discarded.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<String, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn error(body: &[u8]) -> String {
        parse_json::<Value>(body).unwrap_err().to_string()
    }

    #[test]
    fn a_mark_is_skipped_and_other_encodings_are_named() {
        let text = "{\"a\": 1}";
        assert_eq!(parse_json::<Value>(&[UTF8_MARK, text.as_bytes()].concat()).unwrap()["a"], 1);
        let wide = |bytes: fn(u32) -> Vec<u8>| text.chars().map(u32::from).flat_map(bytes).collect::<Vec<u8>>();
        let little16 = wide(|unit| (unit as u16).to_le_bytes().to_vec());
        let big16 = wide(|unit| (unit as u16).to_be_bytes().to_vec());
        let little32 = wide(|unit| unit.to_le_bytes().to_vec());
        let big32 = wide(|unit| unit.to_be_bytes().to_vec());
        for (mark, body, name) in [
            (&b"\xff\xfe"[..], &little16, "UTF-16"),
            (b"", &little16, "UTF-16"),
            (b"\xfe\xff", &big16, "UTF-16"),
            (b"", &big16, "UTF-16"),
            (b"\xff\xfe\0\0", &little32, "UTF-32"),
            (b"", &little32, "UTF-32"),
            (b"\0\0\xfe\xff", &big32, "UTF-32"),
            (b"", &big32, "UTF-32"),
        ] {
            assert_eq!(error(&[mark, body].concat()), format!("it is text in {name}, not in UTF-8"));
        }
        assert_eq!(error(b"{\"a\": \"\xe9\"}"), "it is not UTF-8 from byte 7 on");
    }

    #[test]
    fn errors_name_member_line_and_column() {
        for (body, expected) in [
            ("{\"a\": 1,\n \"b\": [1, 2, oops]}", "`b[2]`: expected value at line 2 column 14"),
            ("{\"a\": {\"b\": [[1], [2,]]}}", "`a.b[1]`: trailing comma at line 1 column 22"),
            ("{\"a\": 1", "EOF while parsing an object at line 1 column 7"),
            ("{\"a\": 1} x", "trailing characters at line 1 column 10"),
            ("{'a': 1}", "double quotes"),
            ("{\"a\": [1, NaN]}", "`a[1]`: expected value at line 1 column 11: JSON has no NaN"),
            ("{\"a\": True}", "JSON has no True"),
        ] {
            let found = error(body.as_bytes());
            assert!(found.contains(expected), "{body}: {found}");
            // A first pass that skips values finds the same.
            let skipped = serde_json::from_str::<serde::de::IgnoredAny>(body).unwrap_err();
            let located = locate(&skipped, body.as_bytes()).to_string();
            assert!(located.contains(expected), "{body}: {located}");
        }
    }
}
