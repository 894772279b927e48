//! Outputs that a request asks for, checked against the model and the server's limits.

use super::request::{Images, InferenceRequest, MalformedInference, RequestedOutput, TensorForm};
use crate::config::RequestLimits;
use crate::http::request::RequestError;
use crate::serving::ServingError;
use densecl_inference::backend::LayerSet;
use densecl_inference::registry::{LookupError, ModelInput, ServedModel};
use densecl_models::GLOBAL;
use densecl_models::geometry::{CELL_MULTIPLE_PX, ImageSize};
use densecl_vision::features::Dtype;
use densecl_vision::features::{NumberForm, Pooling};

const FLOAT_BYTES: u64 = 4;

/// Outputs of a model for images of one size.
pub(super) struct ResolvedOutputs {
    /// In the order of the request.
    pub(super) outputs: Vec<ResolvedOutput>,
    /// Their layers in the model's order, so that sets of the same layers are equal.
    pub(super) layers: LayerSet,
    pub(super) count: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// True if the outputs, which are vectors, are scaled to length 1.
    pub(super) normalize: bool,
}

/// An output of the model.
pub(super) struct ResolvedOutput {
    pub(super) name: String,
    pub(super) form: TensorForm,
    /// Pooling of its cells, for a layer that becomes a vector.
    pub(super) pooling: Option<Pooling>,
    /// `[N, C, h, w]`; `[N, C]` of a pooled layer, `[N, D]` of `global`.
    pub(super) shape: Vec<usize>,
    /// Number of values of all images, before they are pooled.
    pub(super) model_values: u64,
}

impl ResolvedOutput {
    /// An output of `count` images, of channels, rows and columns each.
    fn new(
        name: String,
        form: TensorForm,
        pooling: Option<Pooling>,
        (count, [channels, rows, columns]): (usize, [usize; 3]),
    ) -> Self {
        let is_vector = name == GLOBAL || pooling.is_some();
        let shape = if is_vector { vec![count, channels] } else { vec![count, channels, rows, columns] };
        let model_values =
            [count, channels, rows, columns].iter().map(|&size| size as u64).fold(1, u64::saturating_mul);
        Self { name, form, pooling, shape, model_values }
    }

    /// Number of values of all images after they are pooled; 0 if they are not.
    fn vector_values(&self) -> u64 {
        if self.pooling.is_some() { self.values() } else { 0 }
    }

    /// Number of values of all images.
    pub(super) fn values(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).fold(1, u64::saturating_mul)
    }

    /// Encoding of its numbers.
    pub(super) fn number_form(&self) -> NumberForm {
        match self.form {
            TensorForm::Json => NumberForm::Decimal,
            TensorForm::Binary => NumberForm::Binary(Dtype::Float32),
        }
    }

    /// Largest number of bytes that it takes in the reply.
    pub(super) fn reply_bytes(&self) -> u64 {
        self.number_form().bytes(self.values())
    }
}

impl ResolvedOutputs {
    /// Checks the images, the outputs and the size of the reply.
    ///
    /// # Errors
    /// If the model does not have an output, or the images or the reply exceed a limit.
    pub(super) fn new(
        request: &InferenceRequest,
        model: &ServedModel,
        limits: &RequestLimits,
    ) -> Result<Self, RequestError> {
        let (count, height, width) = sizes(&request.images, limits)?;
        // Sides are within the limit, which is 32 bits wide.
        let input = ImageSize { width: width as u32, height: height as u32 };
        let requested: Vec<RequestedOutput> = match &request.outputs {
            Some(outputs) => outputs.clone(),
            None => {
                model.outputs().map(|name| RequestedOutput { name: name.to_owned(), form: None, pool: None }).collect()
            }
        };
        let mut outputs = Vec::with_capacity(requested.len());
        for RequestedOutput { name, form, pool } in requested {
            let shape = model.expected_shape(&name, input).ok_or_else(|| unknown(&name, model))?;
            if name == GLOBAL && pool.is_some() {
                return Err(MalformedInference::PooledVector.into());
            }
            let pooling = pool.or(request.pool).filter(|_| name != GLOBAL);
            outputs.push(ResolvedOutput::new(name, form.unwrap_or(request.form), pooling, (count, shape)));
        }
        if request.normalize && outputs.iter().any(|output| output.shape.len() > 2) {
            return Err(MalformedInference::NormalizedMap.into());
        }
        let in_order = model.outputs().filter(|name| outputs.iter().any(|output| output.name == *name));
        let layers = LayerSet::new(in_order).ok_or(RequestError::NoSuchPath)?;
        let resolved = Self { outputs, layers, count, height, width, normalize: request.normalize };
        let bytes = resolved.outputs.iter().map(ResolvedOutput::reply_bytes).fold(0, u64::saturating_add);
        if bytes > limits.max_response_bytes {
            return Err(ServingError::ReplyTooLarge { bytes, limit: limits.max_response_bytes }.into());
        }
        Ok(resolved)
    }

    /// True if any output is sent as bytes.
    pub(super) fn is_binary(&self) -> bool {
        self.outputs.iter().any(|output| output.form == TensorForm::Binary)
    }

    /// Largest memory that the answer takes until it is sent: a copy of the images, the outputs, another copy of the
    /// outputs of one image while it runs, the vectors that they are pooled to, and numbers as text if the length of the JSON must be known before it is
    /// sent.
    pub(super) fn memory_bytes(&self, pieces_bytes: u64) -> u64 {
        let pixels = (self.count * self.height * self.width * 3) as u64;
        let sum = |values: fn(&ResolvedOutput) -> u64| self.outputs.iter().map(values).fold(0, u64::saturating_add);
        let floats = sum(|output| output.model_values).saturating_mul(FLOAT_BYTES);
        let vectors = sum(ResolvedOutput::vector_values).saturating_mul(FLOAT_BYTES);
        let is_mixed = self.is_binary();
        let text = self.outputs.iter().filter(|output| is_mixed && output.form == TensorForm::Json);
        let text = text.map(ResolvedOutput::reply_bytes).fold(0, u64::saturating_add);
        let outputs = floats.saturating_add(floats / self.count as u64).saturating_add(vectors);
        pixels.saturating_add(outputs).saturating_add(text).saturating_add(pieces_bytes)
    }

    /// Splits the tensor into one input per image.
    pub(super) fn inputs(&self, images: &Images) -> Vec<ModelInput> {
        let (height, width) = (self.height, self.width);
        let input = |rgb: &[u8]| ModelInput { height, width, rgb: rgb.to_vec() };
        images.pixels.chunks_exact(height * width * 3).map(input).collect()
    }
}

fn sizes(images: &Images, limits: &RequestLimits) -> Result<(usize, usize, usize), RequestError> {
    let Images { count, height, width, .. } = *images;
    let count = usize::try_from(count).ok().filter(|&count| count <= limits.max_images);
    let count = count.ok_or(RequestError::TooManyImages { limit: limits.max_images })?;
    let multiple = CELL_MULTIPLE_PX;
    if [height, width].iter().any(|side| !side.is_multiple_of(u64::from(multiple))) {
        return Err(RequestError::SideNotMultiple { height, width, multiple });
    }
    let longer = height.max(width);
    let too_long = ServingError::SideOutOfRange { side_px: longer, max_side_px: limits.max_side_px };
    match u32::try_from(longer) {
        // There are as many bytes as the shape says, so the sizes fit in memory.
        Ok(side) if side <= limits.max_side_px => Ok((count, height as usize, width as usize)),
        _ => Err(too_long.into()),
    }
}

fn unknown(output: &str, model: &ServedModel) -> RequestError {
    let known = model.outputs().collect::<Vec<_>>().join(", ");
    LookupError::UnknownLayer { name: model.name().to_owned(), layer: output.to_owned(), known }.into()
}
