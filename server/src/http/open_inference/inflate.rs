//! Decompression of request bodies, up to a limit.

use std::io::{BufRead, Read};

use axum::body::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::http::request::RequestError;
use crate::serving::admission::BodyMemory;

/// Bytes that are inflated before more memory is reserved.
const STEP_BYTES: u64 = 1 << 16;

/// Content encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    Identity,
    Gzip,
    /// In the zlib format, as HTTP defines it.
    Deflate,
}

impl ContentEncoding {
    /// Parses the value of `Content-Encoding`.
    ///
    /// # Errors
    /// [`RequestError::ContentEncoding`] for other encodings.
    pub(super) fn parse(header: Option<&str>) -> Result<Self, RequestError> {
        match header.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => Err(RequestError::ContentEncoding { found: other.to_owned() }),
        }
    }

    /// Inflates the body, and reserves `memory` before it grows.
    ///
    /// # Errors
    /// If the body does not have this encoding, is larger than `limit`, or there is no memory for it.
    pub(super) fn inflate(self, body: Bytes, limit: u64, memory: &BodyMemory) -> Result<Bytes, RequestError> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => {
                let mut decoder = GzDecoder::new(&body[..]);
                let inflated = read(&mut decoder, limit, memory)?;
                check_end(decoder.into_inner(), inflated)
            }
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(&body[..]);
                let inflated = read(&mut decoder, limit, memory)?;
                check_end(decoder.into_inner(), inflated)
            }
        }
    }
}

fn read(decoder: &mut impl Read, limit: u64, memory: &BodyMemory) -> Result<Vec<u8>, RequestError> {
    let mut inflated = Vec::new();
    loop {
        memory.take(STEP_BYTES)?;
        let step = decoder.by_ref().take(STEP_BYTES).read_to_end(&mut inflated);
        let step =
            step.map_err(|error| RequestError::MalformedInference(format!("the body does not inflate: {error}")))?;
        if inflated.len() as u64 > limit {
            return Err(RequestError::BodyTooLarge { limit });
        }
        if step == 0 {
            return Ok(inflated);
        }
    }
}

fn check_end(mut rest: impl BufRead, inflated: Vec<u8>) -> Result<Bytes, RequestError> {
    match rest.fill_buf() {
        Ok([]) => Ok(inflated.into()),
        _ => Err(RequestError::MalformedInference("bytes follow the end of the compressed body".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::config::RequestLimits;
    use crate::metrics::Metrics;
    use crate::serving::ServingError;
    use crate::serving::admission::Admission;

    fn admission(bodies: u64) -> Admission {
        let limits = RequestLimits {
            max_side_px: 32,
            max_body_bytes: bodies,
            max_pixels: 1,
            max_response_bytes: 1,
            max_images: 1,
            max_points: 1,
            timeout: Duration::ZERO,
            max_in_flight: 1,
            memory_bytes: 1,
            body_timeout: Duration::ZERO,
        };
        Admission::new(&limits, &Metrics::new().budget)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_bodies_are_inflated() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let room = admission(1 << 30).body();
        for (encoding, body) in [(ContentEncoding::Gzip, gzip(&bytes)), (ContentEncoding::Deflate, zlib(&bytes))] {
            assert_eq!(encoding.inflate(body.into(), 1 << 20, &room).unwrap(), bytes, "{encoding:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_stopped_at_the_limit() {
        let bomb: Bytes = gzip(&vec![0; 64 << 20]).into();
        let room = admission(1 << 30).body();
        let refused = ContentEncoding::Gzip.inflate(bomb.clone(), 1 << 20, &room);
        assert!(matches!(refused, Err(RequestError::BodyTooLarge { limit: 0x0010_0000 })));
        let refused = ContentEncoding::Gzip.inflate(bomb, 1 << 30, &admission(1 << 20).body());
        assert!(
            matches!(refused, Err(RequestError::Serving(ServingError::Overloaded { .. }))),
            "the memory for bodies is limited"
        );
    }

    #[test]
    fn damaged_bodies_are_refused() {
        let room = admission(1 << 20).body();
        let whole = gzip(b"text");
        let longer = [&whole[..], b"more"].concat();
        for damaged in [&whole[..whole.len() - 1], b"text", &longer] {
            let refused = ContentEncoding::Gzip.inflate(Bytes::copy_from_slice(damaged), 1 << 20, &room);
            assert!(matches!(refused, Err(RequestError::MalformedInference(_))), "{damaged:?}");
        }
        assert!(matches!(ContentEncoding::parse(Some("br")), Err(RequestError::ContentEncoding { .. })));
    }
}
