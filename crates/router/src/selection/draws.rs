/// Numbers drawn from one random number: splitmix64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(random: u64) -> Self {
        Self(random)
    }

    /// A number below `n`, which is at least 1, each as likely (but for 2^-32 or so).
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// The position of the least of `keys`; one of them, each as likely, if several are. Keys that
    /// cannot be compared are never the least, unless it is the first.
    pub(crate) fn least<K: PartialOrd>(&mut self, keys: impl IntoIterator<Item = K>) -> usize {
        let mut keys = keys.into_iter();
        let Some(mut least) = keys.next() else {
            return 0;
        };
        let (mut chosen, mut ties) = (0, 1);
        for (position, key) in (1..).zip(keys) {
            if key < least {
                (least, chosen, ties) = (key, position, 1);
            } else if key == least {
                ties += 1;
                if self.below(ties) == 0 {
                    chosen = position;
                }
            }
        }
        chosen
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
