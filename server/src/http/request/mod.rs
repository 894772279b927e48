//! Request bodies with images: raw bytes, a form with parts, or a JSON object.
//!
//! All three are read into an [`Upload`]: images by field, and one list of parameters as text. This module does not
//! interpret the images or the parameters.

mod body_memory;
mod error;
mod form;
mod json;
mod parameters;
mod reading;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, StatusCode, header};

use densecl_vision::image::is_picture;

pub(super) use self::body_memory::metered;
pub use self::error::RequestError;
pub(super) use self::parameters::{Parameters, read_flag, read_points, read_text, word_schema};
pub(super) use self::reading::{ReadBody, ReadRequest, Reading};
use crate::config::RequestLimits;
use crate::serving::CpuPool;

/// Media types of raw bodies. The format of the image is detected from its content.
const RAW_TYPES: [&str; 7] =
    ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "application/octet-stream"];
/// Type that `curl --data-binary` sends by default.
const CURL_DEFAULT_TYPE: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";
const JSON: &str = "application/json";

/// Bodies that a route accepts, with `N` image fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<const N: usize> {
    pub(super) images: [ImageField; N],
    /// True if a raw body is accepted, as the only image of the first field.
    pub(super) raw: bool,
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
        let mut parameters = Parameters::new(limits.max_points);
        parameters.push_query(request.uri().query())?;
        if content_length(&request).is_some_and(|length| length > limits.max_body_bytes) {
            // The connection lingers, so that a client that is still sending can read this reply.
            return Err(RequestError::BodyTooLarge { limit: limits.max_body_bytes });
        }
        check_content_encoding(&request)?;
        let content_type = media_type(&request)?;
        let mut images = Images::new(expected, limits.max_images);
        match content_type.as_str() {
            MULTIPART => return form::Reader::new(images, parameters, limits.max_body_bytes).read(request).await,
            JSON => {
                let body = read_whole(request, limits.max_body_bytes).await?;
                // Tens of megabytes of base64 would block an async thread.
                return cpu.run(move || json::read(&body, images, parameters)).await?;
            }
            raw if expected.raw && RAW_TYPES.contains(&raw) => {
                let body = read_whole(request, limits.max_body_bytes).await?;
                images.push(0, expected.images[0].part, body)?;
            }
            CURL_DEFAULT_TYPE if expected.raw => {
                let body = read_whole(request, limits.max_body_bytes).await?;
                if !is_picture(&body) {
                    return Err(unexpected(content_type, true));
                }
                images.push(0, expected.images[0].part, body)?;
            }
            _ => return Err(unexpected(content_type, expected.raw)),
        }
        Ok(Self { images: images.finish(|field| field.part)?, parameters })
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

/// Reads the whole body, which may be empty.
pub(super) async fn read_optional(request: Request, limit: u64) -> Result<Bytes, RequestError> {
    Bytes::from_request(request, &()).await.map_err(|rejection| body_error(&rejection, limit))
}

fn body_error(rejection: &BytesRejection, limit: u64) -> RequestError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => RequestError::BodyTooLarge { limit },
        _ => RequestError::MalformedBody("the body ended early".to_owned()),
    }
}

pub(super) fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn unexpected(content_type: String, raw: bool) -> RequestError {
    let expected = if raw {
        "Send the bytes with the image's type or application/octet-stream, a multipart/form-data form, or application/json."
    } else {
        "Send a multipart/form-data form, or application/json."
    };
    RequestError::ContentType { found: content_type, expected }
}

/// Refuses compressed bodies: images are compressed already.
fn check_content_encoding(request: &Request) -> Result<(), RequestError> {
    match header_text(request, &header::CONTENT_ENCODING)? {
        Some(found) if !found.eq_ignore_ascii_case("identity") => {
            Err(RequestError::ContentEncoding { found: found.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The media type in lower case, without its parameters; `application/octet-stream` if the header is missing.
fn media_type(request: &Request) -> Result<String, RequestError> {
    let value = header_text(request, &header::CONTENT_TYPE)?.unwrap_or("application/octet-stream");
    Ok(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

pub(super) fn header_text<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a str>, RequestError> {
    let Some(value) = request.headers().get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| RequestError::MalformedBody(format!("the header {name} is not text")))?;
    Ok(Some(text.trim()))
}
