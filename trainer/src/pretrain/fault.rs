//! Finds the first tensor of a model that is not finite.

use tch::Tensor;

use crate::densecl::DenseCl;

/// Message for a loss that is not finite.
pub(super) fn not_a_number(step: u64, loss: f64, model: &DenseCl) -> String {
    let cause = match first_bad(model) {
        Some(name) => format!("the first tensor that is not finite is {name}"),
        None => "all weights, gradients and queues are finite, so it overflowed within the step".to_owned(),
    };
    format!(
        "the loss of step {step} is {loss}; {cause}. Go on from the last checkpoint with a lower \
         optimizer.learning_rate, or with schedule.warmup_steps"
    )
}

/// The first tensor, in the order in which an image meets them, that holds a NaN or an infinity.
pub(super) fn first_bad(model: &DenseCl) -> Option<String> {
    for (role, encoder) in [("query", &model.query), ("key", &model.key)] {
        for (name, _, tensor) in encoder.tensors().iter() {
            if !is_finite(tensor) {
                return Some(format!("`{role}/{name}`"));
            }
        }
    }
    for (name, queue) in [("global", Some(&model.global_queue)), ("dense", model.dense_queue.as_ref())] {
        if queue.is_some_and(|queue| !is_finite(queue.vectors())) {
            return Some(format!("`queue/{name}`"));
        }
    }
    let gradients = model.query.tensors().iter().map(|(name, _, tensor)| (name, tensor.grad()));
    let bad = gradients.into_iter().find(|(_, gradient)| gradient.defined() && !is_finite(gradient));
    bad.map(|(name, _)| format!("the gradient of `query/{name}`"))
}

fn is_finite(tensor: &Tensor) -> bool {
    tch::no_grad(|| tensor.isfinite().all().int64_value(&[]) != 0)
}
