//! JSON bodies: one object, whose fields are the images as base64, and the parameters.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Images, Parameters, RequestError, Upload, image_name};

/// Standard base64, with or without the padding at its end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a JSON object. Only the decoded images and the parameters are copied out of it.
pub(super) fn read<const N: usize>(
    body: &[u8],
    mut images: Images<N>,
    mut parameters: Parameters,
) -> Result<Upload<N>, RequestError> {
    let object: Object<'_> = serde_json::from_slice(body)
        .map_err(|error| RequestError::MalformedBody(format!("the body is not a JSON object: {error}")))?;
    let fields = images.expected.images;
    let mut seen = [false; N];
    for (name, value) in object.0 {
        match fields.iter().position(|field| field.json == name) {
            Some(index) if seen[index] => return Err(RequestError::RepeatedPart { name: fields[index].json }),
            Some(index) => {
                seen[index] = true;
                read_images(&mut images, index, value)?;
            }
            None => {
                parameters.check_room(&name, value.get().len())?;
                parameters.push(name.into_owned(), parameter_text(value)?)?;
            }
        }
    }
    Ok(Upload { images: images.finish(|field| field.json)?, parameters })
}

/// The fields of an object in their order, with unparsed values.
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
        /// More fields than any route has parameters.
        const MAX_FIELDS: usize = 256;
        let mut fields = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            if fields.len() == MAX_FIELDS {
                return Err(serde::de::Error::custom(format_args!("it has more than {MAX_FIELDS} fields")));
            }
            fields.push((name, value));
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
    let Text(text) = serde_json::from_str(value.get()).map_err(|_| malformed("it is not text".to_owned()))?;
    BASE64.decode(text.as_bytes()).map_err(|error| {
        let is_url = text.starts_with("data:");
        let hint = if is_url { "; of a data URL send only what follows the comma" } else { "" };
        malformed(format!("it is not base64: {error}{hint}"))
    })
}

/// Converts a value to the text that a form would hold: strings without quotes, everything else as it is written.
/// `null` becomes an empty field.
fn parameter_text(value: &RawValue) -> Result<String, RequestError> {
    match value.get() {
        "null" => Ok(String::new()),
        text if text.starts_with('"') => {
            let Text(text) =
                serde_json::from_str(text).map_err(|error| RequestError::MalformedBody(error.to_string()))?;
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
            (r#"{"images": ["aGk", "aG k"]}"#, "`images[1]`: it is not base64"),
            (r#"{"images": ["data:image/png;base64,aGk"]}"#, "what follows the comma"),
            (r#"{"images": ["aGk", 7]}"#, "`images[1]`: it is not text"),
            (r#"{"images": {"0": "aGk"}}"#, "`images`: it is not an image in base64, or a list of them"),
            (r#"{"images": [""], "source": "aGk"}"#, "`images[0]` is empty"),
            (r#"{"images": [], "source": "aGk"}"#, "`images` is missing"),
            (r#"{"source": ["aGk"]}"#, "`source`: it is not an image in base64"),
            (r#"{"source": "aGk", "source": "aGk"}"#, "`source` comes more than once"),
            (r#"{"images": ["aGk", "aGk", "aGk", "aGk", "aGk"]}"#, "at most 4"),
            (r#"["aGk"]"#, "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"images": ["aGk"]} x"#, "not a JSON object"),
        ] {
            assert!(detail(body).contains(expected), "{body}: {}", detail(body));
        }
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
