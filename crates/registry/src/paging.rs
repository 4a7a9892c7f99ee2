//! How many rows a page of a list may hold.

/// The most rows that one page of any list holds; a larger wish is cut down to it.
pub const PAGE_MAX: u32 = 500;

/// The part of a page's size that SQL takes.
pub(crate) fn page_limit(wished: u32) -> i64 {
    i64::from(wished.clamp(1, PAGE_MAX))
}
