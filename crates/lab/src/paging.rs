//! Keyset paging: a page starts after the last row of the one before, so it costs the same however far one
//! reads.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{LabError, Txn};

/// Most rows of a page.
pub const PAGE_ROWS_MAX: u32 = 200;
const PAGE_ROWS_DEFAULT: u32 = 50;
const CURSOR_CHARS_MAX: usize = 96;

/// Which page of a list is wanted.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Rows of the page, 1 to [`PAGE_ROWS_MAX`]; 50 when absent.
    pub limit: Option<u32>,
    /// The opaque `next` of the page before.
    pub after: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page starts; absent on the last one. Opaque: pass it back as it is.
    pub next: Option<String>,
}

/// What a cursor points behind. The first letter of the encoded form names the kind, so that the cursor of
/// one list is refused by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// Of a list in the order of ids, as earlier versions had them; still read and not written.
    Id(Uuid),
    Number(i64),
    /// Of a list in the order of time: when, which.
    Moment(Timestamp, Uuid),
    /// Of the feed: the laboratory's epoch, the change's number.
    Feed(Uuid, i64),
    /// Of work: how urgent, since when, which.
    Work(i32, Timestamp, Uuid),
}

impl Cursor {
    fn encode(self) -> String {
        let text = match self {
            Self::Id(id) => format!("i{}", id.simple()),
            Self::Number(number) => format!("n{number}"),
            Self::Moment(at, id) => format!("t{}.{}", at.as_microsecond(), id.simple()),
            Self::Feed(epoch, seq) => format!("f{}.{seq}", epoch.simple()),
            Self::Work(rank, since, id) => format!("w{rank}.{}.{}", since.as_microsecond(), id.simple()),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(text: &str) -> Option<Self> {
        // No honest cursor is longer; a long one is not worth decoding.
        if text.len() > CURSOR_CHARS_MAX {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("i", id) => Uuid::try_parse(id).ok().map(Self::Id),
            ("n", number) => number.parse().ok().map(Self::Number),
            ("t", moment) => {
                let (at, id) = moment.split_once('.')?;
                let at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
                Some(Self::Moment(at, Uuid::try_parse(id).ok()?))
            }
            ("f", feed) => {
                let (epoch, seq) = feed.split_once('.')?;
                Some(Self::Feed(Uuid::try_parse(epoch).ok()?, seq.parse().ok()?))
            }
            ("w", work) => {
                let mut parts = work.splitn(3, '.');
                let rank = parts.next()?.parse().ok()?;
                let since = Timestamp::from_microsecond(parts.next()?.parse().ok()?).ok()?;
                Some(Self::Work(rank, since, Uuid::try_parse(parts.next()?).ok()?))
            }
            _ => None,
        }
    }
}

impl PageRequest {
    /// Rows to fetch: one more than the page has, to know whether another follows.
    pub(crate) fn fetch(&self) -> Result<i64, LabError> {
        Ok(i64::from(self.rows()?) + 1)
    }

    fn rows(&self) -> Result<u32, LabError> {
        self.rows_of(PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX)
    }

    /// Rows of the page, for a list whose pages have bounds of their own.
    pub(crate) fn rows_of(&self, default: u32, max: u32) -> Result<u32, LabError> {
        let rows = self.limit.unwrap_or(default);
        if (1..=max).contains(&rows) {
            Ok(rows)
        } else {
            Err(LabError::invalid(
                "limit",
                format!("it must be between 1 and {max}"),
            ))
        }
    }

    /// Where a list in the order of the database's time goes on. Earlier versions gave the id of the last row
    /// alone: `sql` finds its time.
    pub(crate) async fn after_row(
        &self,
        txn: &Txn<'_>,
        sql: &str,
    ) -> Result<Option<(Timestamp, Uuid)>, LabError> {
        match self.cursor()? {
            None => Ok(None),
            Some(Cursor::Moment(at, id)) => Ok(Some((at, id))),
            Some(Cursor::Id(id)) => {
                let row = txn.query_opt(&txn.prepare_cached(sql).await?, &[&id]).await?;
                row.map(|row| Some((row.get(0), id))).ok_or_else(bad_cursor)
            }
            Some(_) => Err(bad_cursor()),
        }
    }

    pub(crate) fn after_number(&self) -> Result<Option<i64>, LabError> {
        match self.cursor()? {
            None => Ok(None),
            Some(Cursor::Number(number)) => Ok(Some(number)),
            Some(_) => Err(bad_cursor()),
        }
    }

    /// The epoch and number of a feed's cursor; earlier versions gave the number alone.
    pub(crate) fn after_feed(&self) -> Result<Option<(Option<Uuid>, i64)>, LabError> {
        match self.cursor()? {
            None => Ok(None),
            Some(Cursor::Feed(epoch, seq)) => Ok(Some((Some(epoch), seq))),
            Some(Cursor::Number(seq)) => Ok(Some((None, seq))),
            Some(_) => Err(bad_cursor()),
        }
    }

    pub(crate) fn after_moment(&self) -> Result<Option<(Timestamp, Uuid)>, LabError> {
        match self.cursor()? {
            None => Ok(None),
            Some(Cursor::Moment(at, id)) => Ok(Some((at, id))),
            Some(_) => Err(bad_cursor()),
        }
    }

    pub(crate) fn after_work(&self) -> Result<Option<(i32, Timestamp, Uuid)>, LabError> {
        match self.cursor()? {
            None => Ok(None),
            Some(Cursor::Work(rank, since, id)) => Ok(Some((rank, since, id))),
            Some(_) => Err(bad_cursor()),
        }
    }

    fn cursor(&self) -> Result<Option<Cursor>, LabError> {
        self.after
            .as_deref()
            .map(|text| Cursor::decode(text).ok_or_else(bad_cursor))
            .transpose()
    }

    /// Cuts the extra row off and remembers where the next page starts.
    pub(crate) fn page<T>(&self, items: Vec<T>, cursor: impl Fn(&T) -> Cursor) -> Result<Page<T>, LabError> {
        Ok(Page::cut(items, self.rows()?, cursor))
    }
}

impl<T> Page<T> {
    pub(crate) fn cut(mut items: Vec<T>, rows: u32, cursor: impl Fn(&T) -> Cursor) -> Self {
        let rows = rows as usize;
        let more = items.len() > rows;
        items.truncate(rows);
        let next = if more {
            items.last().map(|item| cursor(item).encode())
        } else {
            None
        };
        Self { items, next }
    }
}

fn bad_cursor() -> LabError {
    LabError::invalid(
        "after",
        "this is no cursor of this list; start without one, and follow the next links",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(id in any::<u128>(), number in any::<i64>(), rank in any::<i32>(), second in -9_999_999_999i64..99_999_999_999) {
            let work = Cursor::Work(rank, Timestamp::from_second(second).unwrap(), Uuid::from_u128(id));
            for cursor in [Cursor::Id(Uuid::from_u128(id)), Cursor::Number(number), Cursor::Feed(Uuid::from_u128(id), number), work, Cursor::Moment(Timestamp::from_second(second).unwrap(), Uuid::from_u128(id))] {
                prop_assert!(cursor.encode().len() <= CURSOR_CHARS_MAX);
                prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Cursor::decode(&text);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let request = PageRequest {
            limit: None,
            after: Some(Cursor::Number(5).encode()),
        };
        assert_eq!(request.after_number().unwrap(), Some(5));
        assert!(request.after_moment().is_err());
        assert!(request.after_work().is_err());
    }

    #[test]
    fn the_limit_is_bounded() {
        for (limit, fetched) in [
            (None, Some(51)),
            (Some(1), Some(2)),
            (Some(200), Some(201)),
            (Some(0), None),
            (Some(201), None),
        ] {
            assert_eq!(PageRequest { limit, after: None }.fetch().ok(), fetched);
        }
    }
}
