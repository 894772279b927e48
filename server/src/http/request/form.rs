//! Forms: a part for each image, and a part for each parameter.
//!
//! The name of a part says what it is; its filename and its type say nothing. Parts arrive in batches, and are refused
//! with the batch in which a limit is exceeded.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::BytesMut;
use densecl_vision::image::is_picture;
use futures_util::stream::try_unfold;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::LengthLimitError;
use multer::{Field, Multipart};

use super::header_value::HeaderValueParts;
use super::json_text::other_encoding;
use super::malformed::MalformedBody;
use super::{Images, Parameters, RequestError, Upload, base64_text};

const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
/// Bytes of a body that are kept, to say what it is if it is not a form.
const START_BYTES: usize = 512;

pub(super) struct Reader<const N: usize> {
    images: Images<N>,
    parameters: Parameters,
    max_body_bytes: u64,
    boundary: String,
    start: BodyStart,
    has_parts: bool,
}

impl<const N: usize> Reader<N> {
    pub(super) fn new(images: Images<N>, parameters: Parameters, max_body_bytes: u64) -> Self {
        let (boundary, start) = (String::new(), BodyStart::default());
        Self { images, parameters, max_body_bytes, boundary, start, has_parts: false }
    }

    pub(super) async fn read(mut self, request: Request) -> Result<Upload<N>, RequestError> {
        self.boundary = boundary(request.headers()).ok_or(MalformedBody::NoBoundary)?;
        let start = self.start.clone();
        let pieces = request.into_limited_body().into_data_stream().inspect_ok(move |piece| start.add(piece));
        let mut form = Multipart::new(growing_batches(pieces), self.boundary.as_str());
        while let Some(field) = form.next_field().await.map_err(|error| self.form_error(&error))? {
            self.has_parts = true;
            if let Err(error) = self.read_part(field).await {
                // The rest is read and discarded: a client that is still sending would not see the problem.
                while let Ok(Some(_)) = form.next_field().await {}
                return Err(error);
            }
        }
        Ok(Upload { images: self.images.finish(|field| field.part)?, parameters: self.parameters })
    }

    async fn read_part(&mut self, field: Field<'_>) -> Result<(), RequestError> {
        let disposition = field.headers().get(header::CONTENT_DISPOSITION);
        let disposition = HeaderValueParts::parse(disposition.map(HeaderValue::as_bytes).unwrap_or_default());
        let Some(name) = disposition.get("name").map(str::to_owned) else {
            return Err(MalformedBody::UnnamedPart.into());
        };
        check_transfer_encoding(&name, field.headers())?;
        let is_file = disposition.get("filename").or(disposition.get("filename*")).is_some();
        let fields = self.images.expected.images;
        if let Some(index) = fields.iter().position(|field| field.part == name) {
            self.images.check_room(index, fields[index].part)?;
            let image = field.bytes().await.map_err(|error| self.form_error(&error))?;
            check_bytes(&name, &image, is_file)?;
            return self.images.push(index, fields[index].part, image);
        }
        // Text of another name is refused with the parameters, a file at once.
        if is_file && !self.parameters.is_known(&name) {
            return Err(self.parameters.unknown(name));
        }
        let value = self.read_text(field, &name).await?;
        self.parameters.push(name, value)
    }

    /// Reads the text of a parameter, up to the limit of all parameters.
    async fn read_text(&self, mut field: Field<'_>, name: &str) -> Result<String, RequestError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|error| self.form_error(&error))? {
            self.parameters.check_room(name, bytes.len() + Bytes::len(&chunk))?;
            bytes.extend_from_slice(&chunk);
        }
        let malformed = |reason: String| RequestError::MalformedParameter { name: name.to_owned(), reason };
        if let Some(encoding) = other_encoding(&bytes) {
            return Err(malformed(format!("it is text in {encoding}: send UTF-8")));
        }
        let text = String::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8 text".to_owned()))?;
        // Files of text begin with a mark, or end in an empty line.
        Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
    }

    fn form_error(&self, error: &multer::Error) -> RequestError {
        match error {
            multer::Error::StreamReadFailed(cause) if is_about_length(&**cause) => {
                RequestError::BodyTooLarge { limit: self.max_body_bytes }
            }
            multer::Error::StreamReadFailed(_) => MalformedBody::Incomplete.into(),
            multer::Error::IncompleteStream
            | multer::Error::IncompleteHeaders
            | multer::Error::IncompleteFieldData { .. } => self.unfinished().into(),
            multer::Error::ReadHeaderFailed(_)
            | multer::Error::DecodeHeaderName { .. }
            | multer::Error::DecodeHeaderValue { .. } => MalformedBody::PartHeaders.into(),
            other => MalformedBody::Form(other.to_string()).into(),
        }
    }

    /// The mistake in a form that ends before its end was found.
    fn unfinished(&self) -> MalformedBody {
        let start = self.start.bytes();
        let named = self.boundary.clone();
        if self.has_parts {
            return MalformedBody::Unfinished { boundary: named };
        }
        if is_picture(&start) {
            return MalformedBody::ImageForForm;
        }
        let Some(found) = first_boundary(&start) else { return MalformedBody::NoPart { boundary: named } };
        match found.strip_prefix(named.as_bytes()) {
            Some(b"\n") => MalformedBody::BareLineFeeds,
            Some(b"\r\n" | b"\r" | b"-" | b"") => MalformedBody::Unfinished { boundary: named },
            _ => {
                let found = String::from_utf8_lossy(found.trim_ascii_end()).into_owned();
                MalformedBody::OtherBoundary { found, named }
            }
        }
    }
}

/// Joins the pieces of a body to batches that grow with what came before. The parser searches all that it holds with each
/// batch: a body of many small pieces without a boundary would take time that is quadratic in its length. Beyond 64 MiB,
/// twice what bodies may have unless a flag says otherwise, batches grow no further, because a batch is in memory twice
/// while it is joined.
fn growing_batches<E>(pieces: impl Stream<Item = Result<Bytes, E>>) -> impl Stream<Item = Result<Bytes, E>> {
    const SMALLEST: usize = 64 << 10;
    const LARGEST: usize = 16 << 20;
    try_unfold((Box::pin(pieces), 0), async |(mut pieces, passed)| {
        let Some(first) = pieces.try_next().await? else { return Ok(None) };
        let wanted = (passed / 4).clamp(SMALLEST, LARGEST);
        let batch = if first.len() >= wanted { first } else { join(first, &mut pieces, wanted).await? };
        let passed = passed + batch.len();
        Ok(Some((batch, (pieces, passed))))
    })
}

/// `first` and as many pieces after it as make `wanted` bytes.
async fn join<E>(
    first: Bytes,
    pieces: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    wanted: usize,
) -> Result<Bytes, E> {
    let mut batch = BytesMut::from(first);
    while batch.len() < wanted
        && let Some(piece) = pieces.try_next().await?
    {
        batch.extend_from_slice(&piece);
    }
    Ok(batch.freeze())
}

/// The first bytes of a body, shared by its stream and its reader.
#[derive(Clone, Default)]
struct BodyStart(Arc<Mutex<Vec<u8>>>);

impl BodyStart {
    fn add(&self, piece: &Bytes) {
        let mut start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = START_BYTES.saturating_sub(start.len()).min(piece.len());
        start.extend_from_slice(&piece[..room]);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The boundary that the Content-Type names.
fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = HeaderValueParts::parse(headers.get(header::CONTENT_TYPE)?.as_bytes());
    content_type.get("boundary").filter(|boundary| !boundary.is_empty()).map(str::to_owned)
}

/// The first line of a body without its two hyphens, with its end; `None` if it is no boundary.
fn first_boundary(start: &[u8]) -> Option<&[u8]> {
    let line = start.trim_ascii_start().strip_prefix(b"--")?;
    let end = line.iter().position(|&byte| byte == b'\n').map_or(line.len(), |end| end + 1);
    Some(&line[..end])
}

/// Refuses encodings of the part's bytes, which mail has and HTTP has not (RFC 7578 section 4.7).
fn check_transfer_encoding(name: &str, headers: &HeaderMap) -> Result<(), MalformedBody> {
    let encoding = headers.get(TRANSFER_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
    let encoding = HeaderValueParts::parse(encoding).value;
    match encoding.as_str() {
        "" | "binary" | "8bit" | "7bit" => Ok(()),
        _ => Err(MalformedBody::TransferEncoding { name: name.to_owned(), encoding }),
    }
}

/// Refuses text that stands for an image: the name of its file, or its bytes in base64.
fn check_bytes(name: &str, image: &[u8], is_file: bool) -> Result<(), RequestError> {
    let found = if base64_text::is_encoded_image(image) {
        "base64".to_owned()
    } else {
        match std::str::from_utf8(image) {
            Ok(text) if !is_file && base64_text::is_file_name(text) => format!("the text `{}`", text.trim()),
            _ => return Ok(()),
        }
    };
    Err(RequestError::NotBytes { name: name.to_owned(), found })
}

/// True if the error, or one of its causes, is that the body is longer than allowed.
fn is_about_length(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source()).any(<dyn Error + 'static>::is::<LengthLimitError>)
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
