//! Parameters as text, from the query, the parts of a form or the fields of a JSON object.

use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use super::RequestError;
use super::names::KnownNames;
use super::text_position::TextPosition;
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
/// Parameters that are one JSON text, which clients take apart if they are given a list.
const JSON_TEXTS: [&str; 1] = ["points"];

/// Unparsed names and values. A parameter may be given once, in the query or in the body.
#[derive(Clone, Debug)]
pub(in crate::http) struct Parameters {
    pairs: Vec<(String, String)>,
    /// Where the values of a JSON body begin that are lists themselves.
    origins: Vec<(String, TextPosition)>,
    bytes: usize,
    max_bytes: usize,
    known: KnownNames,
}

impl Parameters {
    /// Creates an empty list whose size limit has room for `max_points` points.
    pub(in crate::http) fn new(max_points: usize) -> Self {
        let max_bytes = max_points.saturating_mul(POINT_BYTES).saturating_add(OTHER_BYTES);
        Self { pairs: Vec::new(), origins: Vec::new(), bytes: 0, max_bytes, known: KnownNames::default() }
    }

    /// Sets the names that the request may have, for messages about others.
    pub(super) fn with_names(self, known: KnownNames) -> Self {
        Self { known, ..self }
    }

    /// The error of a name that the request may not have.
    pub(super) fn unknown(&self, name: String) -> RequestError {
        RequestError::UnknownParameter { expected: self.known.describe_for(&name), name }
    }

    /// True if a parameter has this name. Without [`Self::with_names`] every name is one.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.known.parameters.is_empty() || self.known.parameters.contains(&name)
    }

    /// Adds the parameters of a query.
    pub(in crate::http) fn push_query(&mut self, query: Option<&str>) -> Result<(), RequestError> {
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).try_for_each(|(name, value)| {
            // A `+` that was not written as `%2B`. No name of a layer contains a space.
            let value = if name == "layer" { value.replace(' ', "+") } else { value.into_owned() };
            self.push(name.into_owned(), value)
        })
    }

    /// Adds a parameter whose value begins at a place in the body.
    pub(super) fn push_from(&mut self, name: String, value: String, origin: TextPosition) -> Result<(), RequestError> {
        self.origins.push((name.clone(), origin));
        self.push(name, value)
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
        let bytes = self.bytes;
        let read = move || read(&self).map_err(|error| self.located(error));
        if bytes <= READ_INLINE_BYTES {
            return read();
        }
        cpu.run(read).await?
    }

    /// Moves the place in an error from the parameter's text to the body in which that text stands.
    fn located(&self, error: RequestError) -> RequestError {
        match error {
            RequestError::MalformedJson { name, reason, position, within } => {
                let origin = self.origins.iter().find(|(own, _)| *own == name).map(|(_, origin)| *origin);
                let (position, within) = match origin {
                    Some(origin) => (position.within(origin), "the body"),
                    None => (position, within),
                };
                RequestError::MalformedJson { name, reason, position, within }
            }
            other => other,
        }
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
            self.describe(name, &error.into_inner().to_string())
        })
    }

    /// Describes what serde says of the parameter `name`.
    fn describe(&self, name: String, reason: &str) -> RequestError {
        if let Some(name) = reason.strip_prefix("duplicate field ") {
            let name = name.trim_matches('`').to_owned();
            let count = self.pairs.iter().filter(|(own, value)| *own == name && !value.is_empty()).count();
            let cure = if JSON_TEXTS.contains(&name.as_str()) {
                "; send one JSON text, such as [[12.5, 40], [80, 120]]: json.dumps in Python, JSON.stringify in JavaScript"
            } else {
                ", in the query and the body together"
            };
            return RequestError::MalformedParameter { name, reason: format!("it is given {count} times{cure}") };
        }
        match reason.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
            Some((name, _)) if !self.known.parameters.is_empty() => self.unknown(name.trim_matches('`').to_owned()),
            Some((name, expected)) => RequestError::UnknownParameter {
                name: name.trim_matches('`').to_owned(),
                expected: expected.to_owned(),
            },
            None => {
                let value = self.pairs.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value.as_str());
                let reason = match reason {
                    "invalid digit found in string" => format!("`{value}` is not a whole number of at least 0"),
                    "invalid float literal" => format!("`{value}` is not a number"),
                    "number too large to fit in target type" => format!("`{value}` is too large"),
                    other => other.to_owned(),
                };
                RequestError::MalformedParameter { name, reason }
            }
        }
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
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize::<_, Vec<[f64; 2]>>(&mut reader);
    let read = read.map_err(|error| (error.path().to_string(), error.into_inner()));
    let points = read.and_then(|points| reader.end().map(|()| points).map_err(|error| (String::new(), error)));
    let points = points.map_err(|(path, error)| {
        // JSON has no such numbers, but Python's `json` writes them.
        if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
            RequestError::PointNotFinite
        } else {
            points_error(&path, &error)
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

/// The error of points that cannot be read, at `path` in their list.
fn points_error(path: &str, error: &serde_json::Error) -> RequestError {
    let position = TextPosition { line: error.line().max(1), column: error.column().max(1) };
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    let path = if path == "." { "" } else { path };
    RequestError::MalformedJson {
        name: "points".to_owned(),
        reason: format!("it is not [[x, y], …]: `points{path}`: {reason}"),
        position,
        within: "its text",
    }
}

/// Schema of a parameter that takes one of `words`, with its description. It has no default, which pages and clients would
/// send: a parameter that is not given is left to the server, and `format` to the `Accept` header.
pub(in crate::http) fn word_schema(description: &str, words: &[&str]) -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some(description))
        .enum_values(Some(words.iter().copied()))
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
        for (query, expected) in
            [("side=wide", "`wide` is not a whole number"), ("side=99999999999999999999", "too large")]
        {
            let error = read(query).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
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
        for (text, expected) in [
            ("", "`points`: EOF"),
            ("[1,2]", "`points[0]`: invalid type: integer `1`"),
            ("[[1]]", "`points[0]`: invalid length 1"),
            ("[[1,2],[3,4,5]]", "`points[1]`: trailing"),
            (
                "[[1,2],[3,\"x\"]]",
                "`points[1][1]`: invalid type: string \"x\", expected f64, at line 1 column 13 of its text",
            ),
            ("[[1e999,0]]", "number out of range"),
            ("[[1,2],\n[3;4]]", "at line 2 column 3 of its text"),
            ("{}", "`points`: invalid type: map"),
            ("[[1,2]] x", "`points`: trailing characters"),
        ] {
            let error = read_points(text, 9).unwrap_err();
            assert!(matches!(error, RequestError::MalformedJson { .. }), "{text}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        assert!(matches!(read_points("[]", 9), Err(RequestError::MalformedParameter { .. })));
    }

    #[tokio::test]
    async fn errors_in_a_body_name_its_line() {
        let cpu = CpuPool::new(1).unwrap();
        let mut parameters = Parameters::new(9);
        let origin = TextPosition { line: 3, column: 12 };
        parameters.push_from("points".to_owned(), "[[1,2],\n [3,null]]".to_owned(), origin).unwrap();
        let read = |parameters: &Parameters| read_points(&parameters.as_slice()[0].1, 9);
        let error = parameters.clone().read_with(&cpu, read).await.unwrap_err().to_string();
        assert!(error.contains("`points[1][1]`") && error.contains("at line 4 column 8 of the body"), "{error}");
        let mut parameters = Parameters::new(9);
        parameters.push_from("points".to_owned(), "[[1,2],[x]]".to_owned(), origin).unwrap();
        let error = parameters.read_with(&cpu, read).await.unwrap_err().to_string();
        assert!(error.contains("at line 3 column 20 of the body"), "{error}");
    }

    #[test]
    fn a_list_that_a_client_takes_apart_is_one_text() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Points {
            #[expect(dead_code, reason = "it is never read")]
            points: Option<String>,
        }
        let mut parameters = Parameters::new(9);
        parameters.push_query(Some("points=10&points=8&points=20.5")).unwrap();
        let error = parameters.read::<Points>().unwrap_err().to_string();
        assert!(error.contains("given 3 times") && error.contains("json.dumps"), "{error}");
    }

    #[test]
    fn a_plus_in_a_query_joins_layers() {
        assert_eq!(read("layer=res3+res4").unwrap().layer.as_deref(), Some("res3+res4"));
    }
}
