//! How an operation is defined: its steps in order, with the function of each, and those of its undoing.

use futures_util::future::BoxFuture;
use model::Step;

use crate::{
    engine::{Context, StepOutcome},
    error::StepError,
};

/// What does a step.
pub(crate) type StepFn = for<'a> fn(&'a Context<'a>) -> BoxFuture<'a, Result<StepOutcome, StepError>>;

/// What an operation consists of.
pub(crate) struct Definition {
    pub(crate) steps: Sequence,
    pub(crate) undo: Sequence,
}

/// Steps in their order.
pub(crate) struct Sequence {
    pub(crate) order: &'static [Step],
    /// What does each of them, in the same order.
    pub(crate) functions: &'static [StepFn],
}

impl Sequence {
    /// Of an operation of which nothing is to be taken away.
    pub(crate) const EMPTY: Self = Self {
        order: &[],
        functions: &[],
    };
}

/// The steps of a sequence and the function of each, which takes a [`Context`] and gives what the step saw.
macro_rules! steps {
    ($($step:ident => $function:path),+ $(,)?) => {
        $crate::operations::definition::Sequence {
            order: &[$(model::Step::$step),+],
            // On the heap: the largest step's state is large, and a worker's stack is not.
            functions: &[$(|cx| Box::pin(async move { $function(cx).await.map($crate::engine::StepOutcome::from) })),+],
        }
    };
}
pub(super) use steps;
