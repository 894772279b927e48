//! Pre-trains DenseCL and MoCo-v2 on libtorch and exports ONNX.
//!
//! [`densecl`] is the method on one page; [`pretrain`] is the training loop around it.

pub mod accelerator;
pub mod augment;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod densecl;
pub mod distributed;
pub mod evaluate;
pub mod export;
pub mod golden;
pub mod inspect;
pub mod loss;
pub mod measures;
pub mod monitor;
pub mod native;
pub mod network;
pub mod onnx_session;
pub mod optimizer;
pub mod pretrain;
pub mod pretrained;
pub mod queue;
pub mod report;
pub mod tensor_file;
