//! Parts of replies that routes share: negotiation of the format, bodies that are computed while they are sent, headers.

mod body;
mod headers;
mod held_body;
mod json;
mod negotiation;

pub(super) use self::body::{PIECES_BYTES, ReplyBody};
pub(super) use self::headers::{add_default_headers, set_default_headers};
pub(super) use self::held_body::hold_until_sent;
pub(super) use self::json::{ImageSizeDocument, open_object};
pub(super) use self::negotiation::{ReplyFormat, media_type, negotiate, negotiate_among};
