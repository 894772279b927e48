//! The tensors of a network, by name.

use std::fmt;

use tch::{Device, Kind, Tensor};

/// Role of a tensor in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// Trained by gradient descent or, in the momentum encoder, a moving average.
    Parameter,
    /// BatchNorm's running statistics.
    Buffer,
}

/// Why a tensor cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorProblem {
    /// There is none of this name.
    Missing(String),
    /// It has another shape.
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The network's.
        expected: Vec<i64>,
    },
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Shape { name, found, expected } => write!(f, "{name} is {found:?}, expected {expected:?}"),
        }
    }
}

/// Tensors that do not make up a network: all that are missing or of another shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct LoadError(pub Vec<TensorProblem>);

/// Names, roles and tensors in the order in which the network was built.
///
/// The layers of the network hold the same storage: writing to a tensor here changes the network.
#[derive(Debug)]
pub struct NamedTensors {
    entries: Vec<(String, TensorRole, Tensor)>,
    kind: Kind,
    device: Device,
}

impl NamedTensors {
    /// An empty set whose tensors will have this type and live on this device.
    pub fn new(kind: Kind, device: Device) -> Self {
        Self { entries: Vec::new(), kind, device }
    }

    /// Adds a parameter, filled by `fill`.
    pub fn parameter(&mut self, name: String, size: &[i64], fill: impl FnOnce(&mut Tensor)) -> Tensor {
        self.add(name, TensorRole::Parameter, size, fill)
    }

    /// Adds a buffer, filled by `fill`.
    pub fn buffer(&mut self, name: String, size: &[i64], fill: impl FnOnce(&mut Tensor)) -> Tensor {
        self.add(name, TensorRole::Buffer, size, fill)
    }

    fn add(&mut self, name: String, role: TensorRole, size: &[i64], fill: impl FnOnce(&mut Tensor)) -> Tensor {
        let mut tensor = Tensor::zeros(size, (self.kind, self.device));
        tch::no_grad(|| fill(&mut tensor));
        self.entries.push((name, role, tensor.shallow_clone()));
        tensor
    }

    /// Type of the tensors.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// All tensors: name, role, tensor.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorRole, &Tensor)> {
        self.entries.iter().map(|(name, role, tensor)| (name.as_str(), *role, tensor))
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.of_role(TensorRole::Parameter)
    }

    /// The running statistics, in order.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.of_role(TensorRole::Buffer)
    }

    fn of_role(&self, wanted: TensorRole) -> impl Iterator<Item = &Tensor> {
        self.iter().filter(move |(_, role, _)| *role == wanted).map(|(_, _, tensor)| tensor)
    }

    /// Overwrites every tensor with the one of the same name that `find` returns.
    ///
    /// # Errors
    /// Lists all names that `find` does not know and all shapes that differ; nothing is changed then.
    pub fn load(&self, mut find: impl FnMut(&str) -> Option<Tensor>) -> Result<(), LoadError> {
        let mut problems = Vec::new();
        let mut found = Vec::with_capacity(self.entries.len());
        for (name, _, tensor) in &self.entries {
            match find(name) {
                Some(value) if value.size() == tensor.size() => found.push(value),
                Some(value) => {
                    let (name, found, expected) = (name.clone(), value.size(), tensor.size());
                    problems.push(TensorProblem::Shape { name, found, expected });
                }
                None => problems.push(TensorProblem::Missing(name.clone())),
            }
        }
        if !problems.is_empty() {
            return Err(LoadError(problems));
        }
        tch::no_grad(|| {
            for ((_, _, tensor), value) in self.entries.iter().zip(&found) {
                tensor.shallow_clone().copy_(value);
            }
        });
        Ok(())
    }
}
