//! What keeping the past by default costs.

use super::{Row, Run, churn};

pub(super) const ROWS: &[Row] = &[Row {
    name: "history/delete_and_overwrite",
    question: "the same as churn/delete_and_overwrite, but NorthstarDB keeps an hour of the past, or 1 GiB of it, which is its \
               default; no other engine here keeps any",
    metrics: churn::METRICS,
    run: Run::Loaded(churn::churn),
    once: true,
}];
