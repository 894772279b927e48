//! Format of a reply: the parameter `format` or, without it, the preference of `Accept`.

use axum::http::{HeaderMap, header};

use crate::http::request::RequestError;

/// The formats that one kind of reply comes in.
pub(in crate::http) trait ReplyFormat: Copy + PartialEq + 'static {
    /// All of them with their media types; the first is the answer to `*/*`.
    const OFFERED: &'static [(Self, &'static str)];
}

/// Returns `chosen` if the request names a format, otherwise the one that its `Accept` prefers.
pub(in crate::http) fn negotiate<F: ReplyFormat>(chosen: Option<F>, headers: &HeaderMap) -> Result<F, RequestError> {
    negotiate_among(F::OFFERED, chosen, headers)
}

/// [`negotiate`] for a reply that has only the `offered` formats.
pub(in crate::http) fn negotiate_among<F: ReplyFormat>(
    offered: &[(F, &'static str)],
    chosen: Option<F>,
    headers: &HeaderMap,
) -> Result<F, RequestError> {
    let not_acceptable = |accept: String| {
        let offered: Vec<&str> = offered.iter().map(|(_, media_type)| *media_type).collect();
        RequestError::NotAcceptable { accept, offered: offered.join(", ") }
    };
    if let Some(format) = chosen {
        let is_offered = offered.iter().any(|(offered, _)| *offered == format);
        return if is_offered { Ok(format) } else { Err(not_acceptable(media_type(format).to_owned())) };
    }
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = if values.is_empty() { "*/*".to_owned() } else { values.join(",") };
    let ranges: Vec<MediaRange<'_>> = accept.split(',').filter_map(MediaRange::parse).collect();
    let mut best: Option<(F, f32)> = None;
    for &(format, media_type) in offered {
        let quality = quality_for(media_type, &ranges);
        // The first offered wins a tie.
        if quality > best.map_or(0.0, |(_, quality)| quality) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format).ok_or_else(|| not_acceptable(accept))
}

/// The media type of a format.
pub(in crate::http) fn media_type<F: ReplyFormat>(format: F) -> &'static str {
    let found = F::OFFERED.iter().find(|(offered, _)| *offered == format);
    found.map_or("application/octet-stream", |(_, media_type)| media_type)
}

/// The client's quality value of a media type: that of the most specific range that covers it, 0 if none does.
fn quality_for(media_type: &str, ranges: &[MediaRange<'_>]) -> f32 {
    let covering = ranges.iter().filter_map(|range| Some((range.specificity(media_type)?, range.quality)));
    covering.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, quality)| quality)
}

struct MediaRange<'a> {
    range: &'a str,
    quality: f32,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next().filter(|range| !range.is_empty())?;
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(Some(1.0), |quality| quality.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)))?;
        Some(Self { range, quality })
    }

    /// 2 for the type itself, 1 for `type/*`, 0 for `*/*`; `None` if the range does not cover it.
    fn specificity(&self, media_type: &str) -> Option<u8> {
        let main_type = media_type.split('/').next().unwrap_or_default();
        if self.range.eq_ignore_ascii_case(media_type) {
            Some(2)
        } else if self.range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(main_type)) {
            Some(1)
        } else {
            (self.range == "*/*" || self.range == "*").then_some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Format {
        Json,
        Npy,
        Png,
    }

    impl ReplyFormat for Format {
        const OFFERED: &'static [(Self, &'static str)] =
            &[(Self::Json, "application/json"), (Self::Npy, "application/x-npy"), (Self::Png, "image/png")];
    }

    fn accept(value: &'static str) -> Option<Format> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        negotiate(None, &headers).ok()
    }

    #[test]
    fn any_type_gives_json() {
        assert_eq!(negotiate(None, &HeaderMap::new()).ok(), Some(Format::Json));
        assert_eq!(accept("*/*"), Some(Format::Json));
        assert_eq!(accept("text/html,application/xhtml+xml,*/*;q=0.8"), Some(Format::Json));
    }

    #[test]
    fn the_highest_quality_wins() {
        assert_eq!(accept("application/x-npy"), Some(Format::Npy));
        assert_eq!(accept("image/*"), Some(Format::Png));
        assert_eq!(accept("application/json;q=0.5, application/x-npy"), Some(Format::Npy));
        assert_eq!(accept("*/*;q=0.1, IMAGE/PNG; q=0.2"), Some(Format::Png));
        assert_eq!(accept("application/json;q=0, */*"), Some(Format::Npy));
    }

    #[test]
    fn a_format_that_is_not_offered_is_an_error() {
        assert_eq!(accept("text/html"), None);
        assert_eq!(accept("application/json;q=0"), None);
        assert_eq!(accept(""), None);
        assert_eq!(accept("application/json;q=x"), None);
    }

    #[test]
    fn a_named_format_overrides_accept() {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/html"))]);
        assert_eq!(negotiate(Some(Format::Png), &headers).ok(), Some(Format::Png));
        let some = &Format::OFFERED[..1];
        assert!(matches!(negotiate_among(some, Some(Format::Png), &headers), Err(RequestError::NotAcceptable { .. })));
        assert_eq!(negotiate_among(some, None, &HeaderMap::new()).ok(), Some(Format::Json));
    }
}
