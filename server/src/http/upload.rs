//! Bodies with images: raw bytes, or a form with parts.

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use http_body_util::BodyExt;

use super::parameters::Parameters;
use crate::error::ApiError;

/// Media types of raw bodies. What the bytes really are is told by the bytes.
const RAW_TYPES: [&str; 7] =
    ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "application/octet-stream"];
const MULTIPART: &str = "multipart/form-data";

/// Which bodies a route takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Names of the parts that hold an image; one each.
    pub(super) images: &'static [&'static str],
    /// Whether a raw body stands for the first of them.
    pub(super) raw: bool,
}

/// A body that was read: images in the order of [`Expected::images`], none of them empty.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) images: Vec<Bytes>,
    pub(super) parameters: Parameters,
}

impl Upload {
    /// Reads the query and the body of a request.
    pub(super) async fn read(request: Request, expected: Expected, max_body_bytes: u64) -> Result<Self, ApiError> {
        let parameters = Parameters::from_query(request.uri().query());
        if content_length(&request).is_some_and(|length| length > max_body_bytes) {
            discard(request, max_body_bytes).await;
            return Err(ApiError::BodyTooLarge { limit: max_body_bytes });
        }
        let content_type = media_type(&request)?;
        if content_type == MULTIPART {
            let reader = FormReader { expected, max_body_bytes, images: Vec::new(), parameters };
            return reader.read(request).await;
        }
        let is_raw = RAW_TYPES.contains(&content_type.as_str());
        if !(expected.raw && is_raw) {
            let expected = if expected.raw {
                "Send the bytes with the image's type or application/octet-stream, or a multipart/form-data form."
            } else {
                "Send a multipart/form-data form."
            };
            return Err(ApiError::ContentType { found: content_type, expected });
        }
        let body = read_raw(request, max_body_bytes).await?;
        Ok(Self { images: vec![body], parameters })
    }
}

/// Reads a body that is too large to nowhere, up to twice the limit. A client that is still
/// sending when the connection closes would see a broken connection instead of the problem; one
/// that asks first (`Expect`) is told before it sends.
async fn discard(request: Request, limit: u64) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut left = limit.saturating_mul(2);
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        if bytes > left {
            return;
        }
        left -= bytes;
    }
}

async fn read_raw(request: Request, limit: u64) -> Result<Bytes, ApiError> {
    match Bytes::from_request(request, &()).await {
        Ok(body) if body.is_empty() => Err(ApiError::EmptyBody),
        Ok(body) => Ok(body),
        Err(rejection) => Err(body_error(&rejection, limit)),
    }
}

fn body_error(rejection: &BytesRejection, limit: u64) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit },
        _ => ApiError::MalformedBody("the body ended early".to_owned()),
    }
}

struct FormReader {
    expected: Expected,
    max_body_bytes: u64,
    images: Vec<(&'static str, Bytes)>,
    parameters: Parameters,
}

impl FormReader {
    async fn read(mut self, request: Request) -> Result<Upload, ApiError> {
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|rejection| ApiError::MalformedBody(rejection.body_text()))?;
        while let Some(field) = form.next_field().await.map_err(|error| self.form_error(&error))? {
            self.take(field).await?;
        }
        let images = self.expected.images.iter().map(|&name| self.image(name)).collect::<Result<_, _>>()?;
        Ok(Upload { images, parameters: self.parameters })
    }

    async fn take(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        let name = field.name().unwrap_or_default().to_owned();
        if let Some(&name) = self.expected.images.iter().find(|&&image| image == name) {
            let bytes = field.bytes().await.map_err(|error| self.form_error(&error))?;
            self.images.push((name, bytes));
            return Ok(());
        }
        if field.file_name().is_some() {
            let expected = format!("files are taken as {}", self.expected.images.join(" and "));
            return Err(ApiError::UnknownParameter { name, expected });
        }
        let bytes = field.bytes().await.map_err(|error| self.form_error(&error))?;
        let value = String::from_utf8(bytes.into());
        let value = value.map_err(|_| ApiError::MalformedParameter {
            name: name.clone(),
            reason: "it is not UTF-8 text".to_owned(),
        })?;
        self.parameters.push(name, value);
        Ok(())
    }

    /// The one image of this name.
    fn image(&self, name: &'static str) -> Result<Bytes, ApiError> {
        let mut found = self.images.iter().filter(|(part, _)| *part == name).map(|(_, bytes)| bytes);
        let first = found.next().ok_or(ApiError::MissingPart { name })?;
        match found.count() {
            0 if first.is_empty() => Err(ApiError::EmptyPart { name: name.to_owned() }),
            0 => Ok(first.clone()),
            more => Err(ApiError::RepeatedPart { name, count: more + 1 }),
        }
    }

    fn form_error(&self, error: &MultipartError) -> ApiError {
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit: self.max_body_bytes },
            _ => ApiError::MalformedBody(format!("the form cannot be read: {}", error.body_text())),
        }
    }
}

fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The type without its parameters, in lower case; a body without one is told by its content.
fn media_type(request: &Request) -> Result<String, ApiError> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok("application/octet-stream".to_owned());
    };
    let text = value.to_str().map_err(|_| ApiError::MalformedBody("Content-Type is not text".to_owned()))?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
