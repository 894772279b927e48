//! Forms: a part for each image, and a part for each parameter.

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;

use super::{Images, Parameters, RequestError, Upload};

pub(super) struct Reader<const N: usize> {
    images: Images<N>,
    parameters: Parameters,
    max_body_bytes: u64,
}

impl<const N: usize> Reader<N> {
    pub(super) fn new(images: Images<N>, parameters: Parameters, max_body_bytes: u64) -> Self {
        Self { images, parameters, max_body_bytes }
    }

    pub(super) async fn read(mut self, request: Request) -> Result<Upload<N>, RequestError> {
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|rejection| RequestError::MalformedBody(rejection.body_text()))?;
        while let Some(field) = form.next_field().await.map_err(|error| self.form_error(&error))? {
            if let Err(error) = self.read_field(field).await {
                // The rest is read and discarded: a client that is still sending would not see the problem.
                while let Ok(Some(_)) = form.next_field().await {}
                return Err(error);
            }
        }
        Ok(Upload { images: self.images.finish(|field| field.part)?, parameters: self.parameters })
    }

    async fn read_field(&mut self, field: Field<'_>) -> Result<(), RequestError> {
        let name = field.name().unwrap_or_default().to_owned();
        let fields = self.images.expected.images;
        if let Some(index) = fields.iter().position(|field| field.part == name) {
            self.images.check_room(index, fields[index].part)?;
            let image = field.bytes().await.map_err(|error| self.form_error(&error))?;
            return self.images.push(index, fields[index].part, image);
        }
        if field.file_name().is_some() {
            let expected = format!("files are taken as {}", fields.map(|field| field.part).join(", "));
            return Err(RequestError::UnknownParameter { name, expected });
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
        String::from_utf8(bytes).map_err(|_| RequestError::MalformedParameter {
            name: name.to_owned(),
            reason: "it is not UTF-8 text".to_owned(),
        })
    }

    fn form_error(&self, error: &MultipartError) -> RequestError {
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => RequestError::BodyTooLarge { limit: self.max_body_bytes },
            _ => RequestError::MalformedBody(format!("the form cannot be read: {}", error.body_text())),
        }
    }
}
