//! What the tests of the workspace share: a lab of network namespaces with real servers and a
//! real director in it, the oracle VM, and the way a test says that it could not run.
#![forbid(unsafe_code)]

pub mod lab;
pub mod skip;
pub mod vm;
