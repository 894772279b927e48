//! JSON that several replies share.

use densecl_vision::image::ImageSize;
use serde::Serialize;
use utoipa::ToSchema;

/// Width and height of an image.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(in crate::http) struct ImageSizeDocument {
    /// Width in pixels, after the EXIF orientation is applied.
    width: u32,
    /// Height in pixels, after the EXIF orientation is applied.
    height: u32,
}

impl From<ImageSize> for ImageSizeDocument {
    fn from(ImageSize { width, height }: ImageSize) -> Self {
        Self { width, height }
    }
}

/// Writes the JSON object `head`, which must have members, and the name of one more member, `last`. Its value and the
/// closing brace are streamed by the caller.
///
/// # Errors
/// If `head` cannot be written.
pub(in crate::http) fn open_object<T: Serialize>(head: &T, last: &'static str) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(head)?;
    let closed = json.pop();
    debug_assert!(closed == Some(b'}') && json.last() != Some(&b'{'), "an object with members");
    json.extend_from_slice(format!(",\"{last}\":").as_bytes());
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_follows_the_others() {
        let size = ImageSizeDocument::from(ImageSize { width: 3, height: 2 });
        let mut json = open_object(&size, "data").unwrap();
        json.extend_from_slice(b"[1]}");
        let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, serde_json::json!({ "width": 3, "height": 2, "data": [1] }));
    }
}
