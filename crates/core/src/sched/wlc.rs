//! Weighted least connection, the default: the available destination with the least load for its
//! weight, compared by cross-multiplication. Follows `ip_vs_wlc.c`.

use super::{least_for_weight, overhead};
use crate::env::Env;
use crate::layout::Version;

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    least_for_weight(env, version, overhead)
}
