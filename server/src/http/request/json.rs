//! JSON bodies: one object, whose fields are the images as base64, and the parameters.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json_text::{json_text, locate};
use super::malformed::MalformedBody;
use super::text_position::TextPosition;
use super::{Images, Parameters, RequestError, Upload, base64_text, image_name};

/// More fields than any route has parameters.
const MAX_FIELDS: usize = 256;

/// Reads a JSON object. Only the decoded images and the parameters are copied out of it.
pub(super) fn read<const N: usize>(
    body: &[u8],
    mut images: Images<N>,
    mut parameters: Parameters,
) -> Result<Upload<N>, RequestError> {
    let text = json_text(body).map_err(MalformedBody::from)?;
    let object: Object<'_> = serde_json::from_slice(text).map_err(|error| malformed(&error, text))?;
    if object.0.len() > MAX_FIELDS {
        return Err(MalformedBody::TooManyFields { limit: MAX_FIELDS }.into());
    }
    let fields = images.expected.images;
    let mut places = Places::new(text);
    let mut seen = [false; N];
    for (name, value) in object.0 {
        match fields.iter().position(|field| field.json == name) {
            Some(index) if seen[index] => return Err(RequestError::RepeatedPart { name: fields[index].json }),
            Some(index) => {
                seen[index] = true;
                read_images(&mut images, index, value)?;
            }
            None => {
                if !parameters.is_known(&name) {
                    return Err(parameters.unknown(name.into_owned()));
                }
                parameters.check_room(&name, value.get().len())?;
                match places.find(value) {
                    Some(place) => parameters.push_from(name.into_owned(), parameter_text(value)?, place)?,
                    None => parameters.push(name.into_owned(), parameter_text(value)?)?,
                }
            }
        }
    }
    Ok(Upload { images: images.finish(|field| field.json)?, parameters })
}

/// The error of a body that is not a JSON object.
fn malformed(error: &serde_json::Error, text: &[u8]) -> MalformedBody {
    match text.trim_ascii_start().first() {
        Some(b'[') if error.is_data() => MalformedBody::JsonList,
        Some(b'"') if error.is_data() => MalformedBody::JsonTwice,
        _ => MalformedBody::Json(locate(error, text)),
    }
}

/// Places of values in a body, which are looked for in the order of the body.
struct Places<'a> {
    body: &'a [u8],
    /// Bytes before which the lines are counted, and the position there.
    counted: usize,
    position: TextPosition,
}

impl<'a> Places<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self { body, counted: 0, position: TextPosition { line: 1, column: 1 } }
    }

    /// The place of a value that is a list or an object, in which an error may have a place of its own.
    fn find(&mut self, value: &RawValue) -> Option<TextPosition> {
        if !value.get().starts_with(['[', '{']) {
            return None;
        }
        // The value is a part of the body.
        let offset = value.get().as_ptr().addr().checked_sub(self.body.as_ptr().addr())?;
        let passed = self.body.get(self.counted..offset)?;
        match passed.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => {
                self.position.line += passed.split(|&byte| byte == b'\n').count() - 1;
                self.position.column = passed.len() - last;
            }
            None => self.position.column += passed.len(),
        }
        self.counted = offset;
        Some(self.position)
    }
}

/// The fields of an object in their order, with unparsed values; one more than allowed if there are too many.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Text, borrowed from the body unless it contains an escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            // The rest is read, so that an error in it is found.
            if fields.len() <= MAX_FIELDS {
                fields.push((name, value));
            }
        }
        Ok(Object(fields))
    }
}

/// Reads at most the given number of values of a list, and skips the others.
struct FirstElements(usize);

impl<'de> DeserializeSeed<'de> for FirstElements {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FirstElements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while values.len() < self.0 {
            let Some(value) = list.next_element()? else { return Ok(values) };
            values.push(value);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(values)
    }
}

/// Reads the images of one field: base64, or a list of it.
fn read_images<const N: usize>(images: &mut Images<N>, index: usize, value: &RawValue) -> Result<(), RequestError> {
    let field = images.expected.images[index];
    let malformed = |reason: &str| RequestError::MalformedParameter {
        name: field.json.to_owned(),
        reason: format!("it is not {reason}"),
    };
    let texts = match (value.get().as_bytes().first(), field.count.may_be_several()) {
        (Some(b'['), true) => {
            // One more than allowed shows that there are too many.
            let first = FirstElements(images.limit + 1);
            first.deserialize(&mut serde_json::Deserializer::from_str(value.get())).map_err(|_| malformed("a list"))?
        }
        (Some(b'"'), _) => vec![value],
        (_, true) => return Err(malformed("an image in base64, or a list of them")),
        (_, false) => return Err(malformed("an image in base64")),
    };
    for (position, text) in texts.into_iter().enumerate() {
        images.check_room(index, field.json)?;
        let name = || image_name(field, field.json, position);
        images.push(index, field.json, decode_base64(text, name)?.into())?;
    }
    Ok(())
}

fn decode_base64(value: &RawValue, name: impl Fn() -> String) -> Result<Vec<u8>, RequestError> {
    let malformed = |reason: String| RequestError::MalformedParameter { name: name(), reason };
    let text: Result<Text<'_>, _> = serde_json::from_str(value.get());
    let Text(text) = text.map_err(|_| malformed("it is not text, which base64 is".to_owned()))?;
    base64_text::decode(&text).map_err(|error| malformed(base64_text::message(&error, &text)))
}

/// Converts a value to the text that a form would hold: strings without quotes, everything else as it is written.
/// `null` becomes an empty field.
fn parameter_text(value: &RawValue) -> Result<String, RequestError> {
    match value.get() {
        "null" => Ok(String::new()),
        text if text.starts_with('"') => {
            // Escapes of surrogates that are alone.
            let read: Result<Text<'_>, _> = serde_json::from_str(text);
            let Text(text) = read.map_err(|error| MalformedBody::Json(locate(&error, text.as_bytes())))?;
            Ok(text.into_owned())
        }
        other => Ok(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expected, ImageCount, ImageField};
    use super::*;

    const EXPECTED: Expected<2> = Expected {
        images: [
            ImageField { part: "image", json: "images", count: ImageCount::AtLeastOne },
            ImageField { part: "source", json: "source", count: ImageCount::AtMostOne },
        ],
        raw: false,
        parameters: Vec::new,
    };

    fn upload(body: &str) -> Result<Upload<2>, RequestError> {
        read(body.as_bytes(), Images::new(EXPECTED, 4), Parameters::new(10))
    }

    fn detail(body: &str) -> String {
        upload(body).unwrap_err().to_string()
    }

    #[test]
    fn images_and_parameters_are_separated() {
        let body = r#"{"images": ["aGk=", "aG8"], "side": 512, "points": [[1, 2.5]], "mutual": true, "layer": "res\u0033",
            "source": "YS\u002bh", "model": null}"#;
        let Upload { images: [images, source], parameters } = upload(body).unwrap();
        assert_eq!(images, ["hi", "ho"]);
        assert_eq!(source, [&b"a/\xa1"[..]]);
        let expected =
            [("side", "512"), ("points", "[[1, 2.5]]"), ("mutual", "true"), ("layer", "res3"), ("model", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameters.as_slice(), expected);
        assert_eq!(upload(r#"{"images": "aGk", "source": "aGk"}"#).unwrap().images[0], ["hi"]);
    }

    #[test]
    fn errors_name_the_wrong_field() {
        for (body, expected) in [
            (r#"{"images": ["aGk", "aG*k"]}"#, "`images[1]`: it is not base64: the character '*' at offset 2"),
            (r#"{"images": ["data:image/png,aGk"]}"#, "without `;base64,`"),
            (r#"{"images": ["photo.jpg"]}"#, "name of a file"),
            (r#"{"images": ["aGk", 7]}"#, "`images[1]`: it is not text"),
            (r#"{"images": {"0": "aGk"}}"#, "`images`: it is not an image in base64, or a list of them"),
            (r#"{"images": [""], "source": "aGk"}"#, "`images[0]` is empty"),
            (r#"{"images": [], "source": "aGk"}"#, "`images` is missing"),
            (r#"{"source": ["aGk"]}"#, "`source`: it is not an image in base64"),
            (r#"{"source": "aGk", "source": "aGk"}"#, "`source` comes more than once"),
            (r#"{"images": ["aGk", "aGk", "aGk", "aGk", "aGk"]}"#, "at most 4"),
            (r#"["aGk"]"#, "not a JSON object, but a list"),
            (r#""{\"images\": []}""#, "as JSON twice"),
            ("7", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"images": ["aGk"]} x"#, "not a JSON object: trailing characters at line 1 column 21"),
            ("{\"images\": [\"aGk\"],\n\"points\": [[1, 2], [3,]]}", "`points[1]`: trailing comma at line 2 column 23"),
        ] {
            assert!(detail(body).contains(expected), "{body}: {}", detail(body));
        }
    }

    #[test]
    fn base64_is_read_in_lines_and_as_a_data_url() {
        let body = r#"{"images": ["aG\nk=\r\n", "data:image/png;base64,aGk=", "-_8"], "source": "aGk"}"#;
        assert_eq!(upload(body).unwrap().images[0], [&b"hi"[..], b"hi", b"\xfb\xff"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_body() {
        assert!(upload("\u{feff}{\"images\": \"aGk\", \"source\": \"aGk\"}").is_ok());
        let wide: Vec<u8> = "{\"images\": \"aGk\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = read(&wide, Images::new(EXPECTED, 4), Parameters::new(10)).unwrap_err().to_string();
        assert!(error.contains("UTF-16"), "{error}");
    }

    #[test]
    fn places_of_lists_are_those_in_the_body() {
        let body = "{\"a\": [1],\n\n \"b\": 2, \"c\": {\n\"d\": 1},\"e\":[]}";
        let Object(fields) = serde_json::from_str(body).unwrap();
        let mut places = Places::new(body.as_bytes());
        let found: Vec<_> = fields.iter().map(|(_, value)| places.find(value)).collect();
        let at = |line, column| Some(TextPosition { line, column });
        assert_eq!(found, [at(1, 7), None, at(3, 15), at(4, 13)]);
    }

    #[test]
    fn deep_nesting_and_many_fields_are_refused() {
        let deep =
            format!(r#"{{"images": "aGk", "source": "aGk", "layer": {}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert!(matches!(upload(&deep), Err(RequestError::ParametersTooLarge { .. })));
        let deep = deep.replace("\"layer\"", "\"images\"");
        assert!(upload(&deep).is_err());
        let wide = (0..300).map(|index| format!(r#""a{index}": 1"#)).collect::<Vec<_>>().join(",");
        assert!(detail(&format!("{{{wide}}}")).contains("more than 256 fields"));
    }
}
