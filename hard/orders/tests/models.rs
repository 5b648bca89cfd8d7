//! The lock-free parts keep their promises in every execution, and the models can fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nsorders::models::{MODELS, Weak};

#[test]
fn lock_free_parts_keep_their_promises_in_every_execution() {
    for model in MODELS {
        let executions = model.check(0).unwrap();
        assert!(executions > 10, "{}: {executions} executions", model.name);
    }
}

#[test]
fn models_that_need_one_order_of_all_accesses_fail_without() {
    for model in MODELS {
        let weakened = model.check_weakened(Weak::Pairs);
        assert_eq!(weakened.is_err(), model.needs_one_order, "{}", model.name);
    }
}

#[test]
fn every_model_fails_when_no_access_orders_another() {
    for model in MODELS {
        let weakened = model.check_weakened(Weak::Unordered);
        assert!(weakened.is_err(), "{}", model.name);
    }
}
