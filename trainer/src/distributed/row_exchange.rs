//! The rows that processes send to each other so that all rows come in another order.

use super::ProcessRank;

/// The rows that one process sends and receives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowExchange {
    /// Indices of own rows in the order in which they are sent.
    pub(super) sent: Vec<i64>,
    /// Number of rows that go to each process.
    pub(super) sent_counts: Vec<i64>,
    /// Number of rows that come from each process.
    pub(super) received_counts: Vec<i64>,
    /// For each row of the result, the index of its received row.
    pub(super) arrived: Vec<i64>,
}

impl RowExchange {
    /// The exchange of one process, where row i of the joint result is row `order[i]`.
    pub(super) fn new(ProcessRank { rank, size }: ProcessRank, order: &[i64]) -> Self {
        let share = order.len() / size;
        let owner = |row: i64| row as usize / share;
        let (mut sent, mut sent_counts) = (Vec::new(), Vec::new());
        for wanted in order.chunks(share) {
            let before = sent.len();
            sent.extend(wanted.iter().filter(|&&row| owner(row) == rank).map(|row| row - (rank * share) as i64));
            sent_counts.push((sent.len() - before) as i64);
        }
        let mine = &order[rank * share..(rank + 1) * share];
        let from = |peer: usize| (0..share).filter(move |&i| owner(mine[i]) == peer);
        let received_counts = (0..size).map(|peer| from(peer).count() as i64).collect();
        let mut arrived = vec![0; share];
        for (received, row) in (0..).zip((0..size).flat_map(from)) {
            arrived[row] = received;
        }
        Self { sent, sent_counts, received_counts, arrived }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Performs the exchanges of all processes on rows that are their own indices.
    fn exchange_all(size: usize, order: &[i64]) -> Vec<i64> {
        let share = order.len() / size;
        let exchanges: Vec<_> = (0..size).map(|rank| RowExchange::new(ProcessRank { rank, size }, order)).collect();
        let mut received = vec![Vec::new(); size];
        for (rank, RowExchange { sent, sent_counts, .. }) in exchanges.iter().enumerate() {
            let mut rows = sent.iter().map(|row| row + (rank * share) as i64);
            for (to, &count) in sent_counts.iter().enumerate() {
                assert_eq!(exchanges[to].received_counts[rank], count);
                received[to].extend(rows.by_ref().take(count as usize));
            }
        }
        let arrange = |(rows, exchange): (&Vec<i64>, &RowExchange)| {
            exchange.arrived.iter().map(|&index| rows[index as usize]).collect()
        };
        received.iter().zip(&exchanges).flat_map::<Vec<_>, _>(arrange).collect()
    }

    proptest! {
        #[test]
        fn rows_arrive_in_the_order_asked_for(
            (size, order) in (1_usize..6, 1_usize..6).prop_flat_map(|(size, share)| {
                let rows: Vec<i64> = (0..(size * share) as i64).collect();
                (Just(size), Just(rows).prop_shuffle())
            })
        ) {
            prop_assert_eq!(exchange_all(size, &order), order);
        }
    }
}
