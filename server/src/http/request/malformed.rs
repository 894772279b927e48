//! Mistakes in the form of a body: what is wrong, and what the sender can do about it.

use super::json_text::JsonError;

/// A body that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant describes it")]
pub enum MalformedBody {
    #[error("the body ended early")]
    Incomplete,
    #[error("the header {name} is not text")]
    Header { name: String },
    #[error("the Content-Type of the form names no boundary")]
    NoBoundary,
    #[error("the parts of the form begin with `--{found}`, and its Content-Type names the boundary `{named}`")]
    OtherBoundary { found: String, named: String },
    #[error("the body has no line `--{boundary}`, with which the parts of the form begin")]
    NoPart { boundary: String },
    #[error("the body is the file of an image, and its Content-Type is that of a form")]
    ImageForForm,
    #[error("the lines of the form end in LF alone")]
    BareLineFeeds,
    #[error("the form ends before its last line, `--{boundary}--`")]
    Unfinished { boundary: String },
    #[error("the headers of a part of the form cannot be read")]
    PartHeaders,
    #[error("a part of the form has no name")]
    UnnamedPart,
    #[error("the part `{name}` has the Content-Transfer-Encoding `{encoding}`")]
    TransferEncoding { name: String, encoding: String },
    #[error("the form cannot be read: {0}")]
    Form(String),
    #[error("the body is not a JSON object: {0}")]
    Json(#[from] JsonError),
    #[error("the body is not a JSON object, but a list")]
    JsonList,
    #[error("the body is not a JSON object, but a text: it was written as JSON twice")]
    JsonTwice,
    #[error("the JSON object of the body has more than {limit} fields")]
    TooManyFields { limit: usize },
}

impl MalformedBody {
    /// Advice for the sender.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Incomplete | Self::Header { .. } | Self::Form(_) => {
                "Send the body complete, and as its Content-Type says."
            }
            Self::NoBoundary | Self::OtherBoundary { .. } => {
                "Do not set the header Content-Type of a form: the client sets it, with the boundary that it writes between the parts."
            }
            Self::NoPart { .. } => {
                "Let the client write the form and its Content-Type: files= in Python's requests, FormData in JavaScript, -F in curl."
            }
            Self::ImageForForm => {
                "Send the bytes with the image's type (curl: -H 'Content-Type: image/jpeg' --data-binary @FILE), or let the client write a form (curl: -F image=@FILE)."
            }
            Self::BareLineFeeds => "End the lines of a form, but not of the files in it, in CR LF.",
            Self::Unfinished { .. } => "Send the form complete, with two hyphens behind the last boundary.",
            Self::PartHeaders => {
                "Give each part of the form one line `Content-Disposition: form-data; name=\"NAME\"`, and an empty line before its content."
            }
            Self::UnnamedPart => {
                "Name each part: `Content-Disposition: form-data; name=\"image\"` for an image, or the name of a parameter."
            }
            Self::TransferEncoding { .. } => "Send the bytes as they are; base64 is taken in JSON.",
            Self::Json(error) => error.hint(),
            Self::JsonList | Self::TooManyFields { .. } => {
                "Send one object: the images are a field, and each parameter is one."
            }
            Self::JsonTwice => {
                "Encode the object once: with Python's requests, json=OBJECT or data=json.dumps(OBJECT)."
            }
        }
    }
}
