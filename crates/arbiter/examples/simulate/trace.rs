//! Chooses which tenant asks next: tenants whose popularity follows Zipf's law, and changes during the day.

use crate::random::Random;

/// Chooses ranks with a probability of 1 ÷ rank, as measured of tenants, sites and words alike.
pub(crate) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(tenants: usize) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=tenants)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { cumulated }
    }

    pub(crate) fn rank(&self, random: &mut Random) -> usize {
        let all = self.cumulated.last().copied().unwrap_or(0.0);
        let at = random.unit() * all;
        let rank = self.cumulated.partition_point(|&sum| sum <= at);
        rank.min(self.cumulated.len() - 1)
    }
}

/// How the tenants' popularity changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Day {
    /// It does not change.
    Steady,
    /// Half-way, other tenants become the popular ones.
    Shift,
    /// In the middle, a job touches every tenant once, with half of the requests.
    Scan,
    /// One request in ten belongs to a burst of thirty, of a tenant that is as likely as any other.
    Bursts,
}

impl Day {
    pub(crate) const ALL: [Self; 4] = [Self::Steady, Self::Shift, Self::Scan, Self::Bursts];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Shift => "shift",
            Self::Scan => "scan",
            Self::Bursts => "bursts",
        }
    }
}

/// Returns which tenant asks next, for `requests` requests.
pub(crate) struct Trace {
    day: Day,
    zipf: Zipf,
    random: Random,
    /// Which tenant has which rank.
    tenants: Vec<usize>,
    requests: usize,
    made: usize,
    scanned: usize,
    bursts: Vec<(usize, u32)>,
}

impl Trace {
    pub(crate) fn new(day: Day, tenants: usize, requests: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut by_rank: Vec<usize> = (0..tenants).collect();
        random.shuffle(&mut by_rank);
        Self {
            day,
            zipf: Zipf::new(tenants),
            random,
            tenants: by_rank,
            requests,
            made: 0,
            scanned: 0,
            bursts: Vec::new(),
        }
    }

    /// Where popularity changes: a choice that is best for a part of the day ends there.
    pub(crate) fn phases(&self) -> Vec<usize> {
        match self.day {
            Day::Shift => vec![self.requests / 2, self.requests],
            _ => vec![self.requests],
        }
    }

    fn popular(&mut self) -> usize {
        self.tenants[self.zipf.rank(&mut self.random)]
    }

    fn scan(&mut self) -> Option<usize> {
        let due =
            self.made > self.requests / 2 && self.made.is_multiple_of(2) && self.scanned < self.tenants.len();
        due.then(|| {
            self.scanned += 1;
            self.scanned - 1
        })
    }

    fn burst(&mut self) -> Option<usize> {
        if self.random.below(300) == 0 {
            let tenant = self.random.below(self.tenants.len());
            self.bursts.push((tenant, 30));
        }
        // A tenth of the requests are in bursts, a few of which go on at the same time.
        if self.bursts.is_empty() || self.random.below(5) > 0 {
            return None;
        }
        let index = self.random.below(self.bursts.len());
        let (tenant, left) = &mut self.bursts[index];
        *left -= 1;
        let (tenant, left) = (*tenant, *left);
        if left == 0 {
            self.bursts.swap_remove(index);
        }
        Some(tenant)
    }
}

impl Iterator for Trace {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.made == self.requests {
            return None;
        }
        self.made += 1;
        let special = match self.day {
            Day::Steady => None,
            Day::Shift => {
                if self.made == self.requests / 2 {
                    self.random.shuffle(&mut self.tenants);
                }
                None
            }
            Day::Scan => self.scan(),
            Day::Bursts => self.burst(),
        };
        Some(special.unwrap_or_else(|| self.popular()))
    }
}
