//! Request bodies with images: raw bytes, a form with parts, or a JSON object.
//!
//! All three are read into an [`Upload`]: images by field, and one list of parameters as text. This module does not
//! interpret the images or the parameters.

mod base64_text;
mod body_memory;
mod error;
mod form;
mod header_value;
mod json;
mod json_text;
mod malformed;
mod names;
mod parameters;
mod reading;
mod struct_fields;
mod text_position;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};

use densecl_vision::image::is_picture;

pub(super) use self::body_memory::metered;
pub use self::error::RequestError;
use self::header_value::HeaderValueParts;
pub use self::json_text::JsonError;
pub(super) use self::json_text::{json_text, parse_json};
pub use self::malformed::MalformedBody;
use self::names::KnownNames;
pub(super) use self::parameters::{Parameters, read_flag, read_points, read_text, word_schema};
pub(super) use self::reading::{ReadBody, ReadRequest, Reading};
pub(super) use self::struct_fields::struct_fields;
pub use self::text_position::TextPosition;
use crate::config::RequestLimits;
use crate::serving::CpuPool;

const MULTIPART: &str = "multipart/form-data";
/// Types that say nothing of the content; that of a request without the header is empty.
const BINARY_TYPES: [&str; 5] =
    ["", "application/octet-stream", "binary/octet-stream", "application/binary", "application/x-binary"];

/// Bodies that a route accepts, with `N` image fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<const N: usize> {
    pub(super) images: [ImageField; N],
    /// True if a raw body is accepted, as the only image of the first field.
    pub(super) raw: bool,
    /// The names of all parameters.
    pub(super) parameters: fn() -> Vec<&'static str>,
}

impl<const N: usize> Expected<N> {
    /// The names that a body of this type may have.
    fn names(&self, body: BodyType) -> KnownNames {
        let images = match body {
            BodyType::Form => self.images.map(|field| field.part).to_vec(),
            BodyType::Json => self.images.map(|field| field.json).to_vec(),
            BodyType::Other => Vec::new(),
        };
        KnownNames { images, parameters: (self.parameters)() }
    }
}

/// Type of a body by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyType {
    Form,
    Json,
    /// The content decides.
    Other,
}

impl BodyType {
    fn of(media_type: &str) -> Self {
        match media_type {
            MULTIPART => Self::Form,
            "application/json" | "text/json" | "application/x-json" => Self::Json,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }
}

/// A field that holds images.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImageField {
    /// Name of the part of a form; each part holds one image.
    pub(super) part: &'static str,
    /// Name of the field of a JSON object, which holds an image, or a list of images if several are allowed.
    pub(super) json: &'static str,
    pub(super) count: ImageCount,
}

/// Number of images that a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageCount {
    AtMostOne,
    /// At least one, up to the server's limit.
    AtLeastOne,
    /// Any number, up to the server's limit.
    Any,
}

impl ImageCount {
    fn may_be_several(self) -> bool {
        matches!(self, Self::AtLeastOne | Self::Any)
    }

    fn may_be_none(self) -> bool {
        matches!(self, Self::AtMostOne | Self::Any)
    }
}

/// A body that was read.
#[derive(Debug)]
pub(super) struct Upload<const N: usize> {
    /// The images of each field of [`Expected::images`]: their number fits its [`ImageCount`], and none is empty.
    pub(super) images: [Vec<Bytes>; N],
    pub(super) parameters: Parameters,
}

impl<const N: usize> Upload<N> {
    /// Reads the query and the body of a request.
    ///
    /// # Errors
    /// [`RequestError`], which names the wrong part or parameter.
    pub(super) async fn read(
        limits: &RequestLimits,
        cpu: &CpuPool,
        request: Request,
        expected: Expected<N>,
    ) -> Result<Self, RequestError> {
        let media_type = media_type(&request);
        let body_type = BodyType::of(&media_type);
        let mut parameters = Parameters::new(limits.max_points).with_names(expected.names(body_type));
        parameters.push_query(request.uri().query())?;
        if content_length(&request).is_some_and(|length| length > limits.max_body_bytes) {
            // The connection lingers, so that a client that is still sending can read this reply.
            return Err(RequestError::BodyTooLarge { limit: limits.max_body_bytes });
        }
        check_content_encoding(&request)?;
        let mut images = Images::new(expected, limits.max_images);
        match body_type {
            BodyType::Form => form::Reader::new(images, parameters, limits.max_body_bytes).read(request).await,
            BodyType::Json => {
                let body = read_whole(request, limits.max_body_bytes).await?;
                // Tens of megabytes of base64 would block an async thread.
                cpu.run(move || json::read(&body, images, parameters)).await?
            }
            BodyType::Other if expected.raw => {
                let body = read_whole(request, limits.max_body_bytes).await?;
                let is_binary = media_type.starts_with("image/") || BINARY_TYPES.contains(&&*media_type);
                // Other content of a binary type is named when it is decoded.
                if !is_binary
                    && !is_picture(&body)
                    && let Some(expected) = raw_hint(&body)
                {
                    return Err(RequestError::ContentType { found: media_type, expected });
                }
                images.push(0, expected.images[0].part, body)?;
                Ok(Self { images: images.finish(|field| field.part)?, parameters })
            }
            BodyType::Other => Err(RequestError::ContentType {
                found: media_type,
                expected: "Send a multipart/form-data form, or application/json.",
            }),
        }
    }
}

/// Images that have been read so far.
struct Images<const N: usize> {
    expected: Expected<N>,
    found: [Vec<Bytes>; N],
    /// Limit of all images of a request.
    limit: usize,
}

impl<const N: usize> Images<N> {
    fn new(expected: Expected<N>, max_images: usize) -> Self {
        Self { expected, found: std::array::from_fn(|_| Vec::new()), limit: max_images }
    }

    /// Refuses another image of the field at `index`, called `name` in this body, if it would exceed a limit.
    fn check_room(&self, index: usize, name: &'static str) -> Result<(), RequestError> {
        if !self.expected.images[index].count.may_be_several() && !self.found[index].is_empty() {
            return Err(RequestError::RepeatedPart { name });
        }
        if self.found.iter().map(Vec::len).sum::<usize>() >= self.limit {
            return Err(RequestError::TooManyImages { limit: self.limit });
        }
        Ok(())
    }

    /// Adds an image to the field at `index`, called `name` in this body.
    fn push(&mut self, index: usize, name: &'static str, image: Bytes) -> Result<(), RequestError> {
        self.check_room(index, name)?;
        if image.is_empty() {
            let name = image_name(self.expected.images[index], name, self.found[index].len());
            return Err(RequestError::EmptyPart { name });
        }
        self.found[index].push(image);
        Ok(())
    }

    /// Returns the images of each field. An error calls a missing field by its `name`.
    fn finish(self, name: impl Fn(&ImageField) -> &'static str) -> Result<[Vec<Bytes>; N], RequestError> {
        for (field, found) in self.expected.images.iter().zip(&self.found) {
            if found.is_empty() && !field.count.may_be_none() {
                return Err(RequestError::MissingPart { name: name(field) });
            }
        }
        Ok(self.found)
    }
}

/// Name of an image in errors: `source`, or `images[3]` if the field may hold several.
fn image_name(field: ImageField, name: &str, index: usize) -> String {
    if field.count.may_be_several() { format!("{name}[{index}]") } else { name.to_owned() }
}

/// Reads the whole body and refuses an empty one.
pub(super) async fn read_whole(request: Request, limit: u64) -> Result<Bytes, RequestError> {
    let body = read_optional(request, limit).await?;
    if body.is_empty() { Err(RequestError::EmptyBody) } else { Ok(body) }
}

/// Reads the whole body, which may be empty, of at most `limit` bytes.
pub(super) async fn read_optional(mut request: Request, limit: u64) -> Result<Bytes, RequestError> {
    DefaultBodyLimit::apply(DefaultBodyLimit::max(usize::try_from(limit).unwrap_or(usize::MAX)), &mut request);
    Bytes::from_request(request, &()).await.map_err(|rejection| body_error(&rejection, limit))
}

fn body_error(rejection: &BytesRejection, limit: u64) -> RequestError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => RequestError::BodyTooLarge { limit },
        _ => MalformedBody::Incomplete.into(),
    }
}

pub(super) fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Advice for a body that is neither an image nor declared to be one, but looks like a body of another type or
/// like a file's name. `None` for other content, which is named when it is decoded.
fn raw_hint(body: &[u8]) -> Option<&'static str> {
    let start = &body[..body.len().min(64)];
    let is_utf8 = match std::str::from_utf8(start) {
        Ok(_) => true,
        // A character may be cut in two.
        Err(error) => error.error_len().is_none() && start.len() < body.len(),
    };
    // A zero byte is no text, although UTF-8 has it.
    let is_text = is_utf8 && !start.contains(&0);
    match body.trim_ascii_start() {
        [b'{' | b'[', ..] => Some("It looks like JSON: send it with `Content-Type: application/json`."),
        [b'-', b'-', ..] => {
            Some("It looks like a form: let the client set its Content-Type, which names the boundary.")
        }
        [b'<' | b'%', ..] => None,
        _ if is_text && body.len() <= 4096 && !body.contains(&b'=') => {
            Some("Send the bytes of an image, not its name; in curl: --data-binary @FILE, or -F image=@FILE.")
        }
        _ if is_text => Some(
            "Send the bytes of an image, of any type but text, a multipart/form-data form (files= in Python's requests, -F in curl), or application/json.",
        ),
        _ => None,
    }
}

/// Refuses compressed bodies: images are compressed already.
fn check_content_encoding(request: &Request) -> Result<(), RequestError> {
    // Several lines of one header are one list (RFC 9110 section 5.3).
    for value in request.headers().get_all(header::CONTENT_ENCODING) {
        let found = value_text(value, &header::CONTENT_ENCODING)?;
        if !found.split(',').all(|encoding| encoding.trim().eq_ignore_ascii_case("identity")) {
            return Err(RequestError::ContentEncoding { found: found.to_owned() });
        }
    }
    Ok(())
}

/// The media type in lower case, without its parameters; empty if the header is missing.
fn media_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    HeaderValueParts::parse(value.unwrap_or_default()).value
}

pub(super) fn header_text<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a str>, RequestError> {
    let Some(value) = request.headers().get(name) else { return Ok(None) };
    Ok(Some(value_text(value, name)?))
}

fn value_text<'a>(value: &'a HeaderValue, name: &HeaderName) -> Result<&'a str, MalformedBody> {
    value.to_str().map(str::trim).map_err(|_| MalformedBody::Header { name: name.to_string() })
}
