//! Minimising a smooth function by limited-memory BFGS.
//!
//! Source: Nocedal and Wright, *Numerical Optimization*, 2nd edition, algorithms 7.4 and 7.5, with
//! a line search that halves the step until the decrease suffices (algorithm 3.1); updates whose
//! curvature is not positive are left out, which keeps the approximation positive definite.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

/// Pairs of steps and changes of the gradient that approximate the curvature.
const MEMORY: usize = 10;

/// Share of the decrease that the slope promises with which the line search is content.
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// Halvings of a step before it is given up: the function is flat to the last digit then.
const MAX_HALVINGS: usize = 30;

/// Conditions that end the minimisation.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopWhen {
    /// After so many steps.
    pub(super) iterations: usize,
    /// Bound of all elements of the gradient.
    pub(super) gradient_below: f64,
}

/// Goes down from `x` `[P]`; `evaluate` returns value and gradient `[P]`. Returns where it ended.
pub(super) fn minimize(x: Tensor, stop: StopWhen, mut evaluate: impl FnMut(&Tensor) -> (f64, Tensor)) -> Tensor {
    let mut x = x;
    let (mut value, mut gradient) = evaluate(&x);
    let mut history = VecDeque::with_capacity(MEMORY);
    for _ in 0..stop.iterations {
        let steepest = gradient.abs().max().double_value(&[]);
        if steepest <= stop.gradient_below {
            break;
        }
        let direction = -inverse_hessian_times(&gradient, &history); // [P]
        let slope = dot(&gradient, &direction);
        // Before anything is known of the curvature, a step that moves no element by more than 1.
        let mut length = if history.is_empty() { (1.0 / steepest).min(1.0) } else { 1.0 };
        let accepted = (0..MAX_HALVINGS).find_map(|_| {
            let candidate = &x + &direction * length;
            let (new_value, new_gradient) = evaluate(&candidate);
            let is_lower = new_value <= value + SUFFICIENT_DECREASE * length * slope;
            length *= 0.5;
            is_lower.then_some((candidate, new_value, new_gradient))
        });
        let Some((new_x, new_value, new_gradient)) = accepted else { break };
        let (step, change) = (&new_x - &x, &new_gradient - &gradient); // [P]
        let curvature = dot(&step, &change);
        if curvature > f64::EPSILON * dot(&change, &change) {
            if history.len() == MEMORY {
                history.pop_front();
            }
            history.push_back(Update { step, change, curvature });
        }
        (x, value, gradient) = (new_x, new_value, new_gradient);
    }
    x
}

/// Curvature information of one step.
struct Update {
    step: Tensor,
    change: Tensor,
    curvature: f64,
}

/// The two-loop recursion.
fn inverse_hessian_times(gradient: &Tensor, history: &VecDeque<Update>) -> Tensor {
    let mut q = gradient.copy();
    let mut shares = Vec::with_capacity(history.len());
    for update in history.iter().rev() {
        let share = dot(&update.step, &q) / update.curvature;
        q -= &update.change * share;
        shares.push(share);
    }
    if let Some(newest) = history.back() {
        q *= newest.curvature / dot(&newest.change, &newest.change);
    }
    for (update, share) in history.iter().zip(shares.into_iter().rev()) {
        let correction = share - dot(&update.change, &q) / update.curvature;
        q += &update.step * correction;
    }
    q
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bottom_of_a_narrow_bent_valley() {
        // Rosenbrock's function; its lowest point is (1, 1).
        let evaluate = |x: &Tensor| {
            let [a, b] = [0, 1].map(|i| x.double_value(&[i]));
            let value = (1.0 - a).powi(2) + 100.0 * (b - a * a).powi(2);
            let gradient = [-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a)];
            (value, Tensor::from_slice(&gradient))
        };
        let stop = StopWhen { iterations: 200, gradient_below: 1e-9 };
        let lowest = minimize(Tensor::from_slice(&[-1.2, 1.0]), stop, evaluate);
        assert!((lowest - Tensor::from_slice(&[1.0, 1.0])).abs().max().double_value(&[]) < 1e-6);
    }
}
