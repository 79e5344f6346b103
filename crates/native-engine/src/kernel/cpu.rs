//! What the CPU can do.

use std::fmt;

/// An instruction set that this process may use, found at run time.
///
/// All kernels give the same bits; they differ in speed only. A value of this type is proof that
/// the CPU has the instructions, so there is no way to make one but [`Kernel::best`] and
/// [`Kernel::available`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(pub(super) Isa);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernel {
    /// The fastest kernel that this CPU has.
    pub fn best() -> Self {
        *Self::available()
            .last()
            .expect("the portable kernel is always there")
    }

    /// Every kernel that this CPU has, the portable one first and the fastest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut kernels = vec![Self(Isa::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("f16c") {
                kernels.push(Self(Isa::Avx2));
                if has!("avxvnni") {
                    kernels.push(Self(Isa::AvxVnni));
                }
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                    kernels.push(Self(Isa::Avx512Vnni));
                }
            }
        }
        kernels
    }

    /// Its name, as in logs: `portable`, `avx2`, `avx-vnni` or `avx512-vnni`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => "avx512-vnni",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Asks for a slice that will be read soon: hardware prefetchers stop at each page, and KV blocks
/// are far apart.
#[inline(always)]
pub(super) fn prefetch<T>(soon: &[T]) {
    const LINE_BYTES: usize = 64;
    let start = soon.as_ptr().cast::<u8>();
    for offset in (0..size_of_val(soon)).step_by(LINE_BYTES) {
        prefetch_line(start.wrapping_add(offset));
    }
}

/// Asks for the cache line at an address, which may be any: a hint reads nothing.
#[inline(always)]
pub(super) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of any address has no effect but time.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Compiles one portable function body for each instruction set and picks one at run time.
///
/// The body must be `#[inline(always)]`, work on lanes held in arrays, and stay away from
/// anything whose result depends on the instruction set (`mul_add`, libm). The compiler may then
/// use wider registers, which cannot change any bit: it never reassociates or fuses on its own.
macro_rules! vectorised {
    ($(#[$attribute:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:path) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        pub(super) fn $name(kernel: $crate::kernel::Kernel, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernel::cpu::Isa;

                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $type),*) {
                    $body($($arg),*)
                }

                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $type),*) {
                    $body($($arg),*)
                }

                match kernel.0 {
                    Isa::Portable => $body($($arg),*),
                    // SAFETY: a `Kernel` of this kind exists only where the CPU has the feature.
                    Isa::Avx2 | Isa::AvxVnni => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx512Vnni => unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = kernel;
                $body($($arg),*)
            }
        }
    };
}
pub(super) use vectorised;
