//! Rows of several processes in another order: who sends which to whom.

use super::Place;

/// What a process sends and gets so that rows come in another order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moves {
    /// Own rows in the order in which they are sent.
    pub(super) sent: Vec<i64>,
    /// How many of them go to each process.
    pub(super) sent_counts: Vec<i64>,
    /// How many come from each process.
    pub(super) received_counts: Vec<i64>,
    /// For each row of the result, which of the received ones it is.
    pub(super) arrived: Vec<i64>,
}

impl Moves {
    /// Those of the process at a place, where row i of the result of all is row `order[i]`.
    pub(super) fn of(Place { rank, size }: Place, order: &[i64]) -> Self {
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
        for (slot, place) in (0..).zip((0..size).flat_map(from)) {
            arrived[place] = slot;
        }
        Self { sent, sent_counts, received_counts, arrived }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Carries out the moves of all processes on rows that are their own numbers.
    fn carry_out(size: usize, order: &[i64]) -> Vec<i64> {
        let share = order.len() / size;
        let moves: Vec<_> = (0..size).map(|rank| Moves::of(Place { rank, size }, order)).collect();
        let mut received = vec![Vec::new(); size];
        for (rank, Moves { sent, sent_counts, .. }) in moves.iter().enumerate() {
            let mut rows = sent.iter().map(|row| row + (rank * share) as i64);
            for (to, &count) in sent_counts.iter().enumerate() {
                assert_eq!(moves[to].received_counts[rank], count);
                received[to].extend(rows.by_ref().take(count as usize));
            }
        }
        let arrange =
            |(rows, moves): (&Vec<i64>, &Moves)| moves.arrived.iter().map(|&slot| rows[slot as usize]).collect();
        received.iter().zip(&moves).flat_map::<Vec<_>, _>(arrange).collect()
    }

    proptest! {
        #[test]
        fn every_row_comes_to_its_place(
            (size, order) in (1_usize..6, 1_usize..6).prop_flat_map(|(size, share)| {
                let rows: Vec<i64> = (0..(size * share) as i64).collect();
                (Just(size), Just(rows).prop_shuffle())
            })
        ) {
            prop_assert_eq!(carry_out(size, &order), order);
        }
    }
}
