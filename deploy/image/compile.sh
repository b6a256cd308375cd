#!/bin/sh
# Compiles the static binary for an architecture. build.sh calls it, and says why:
#   compile.sh ARCH plain          target/image/ARCH/user-service
#   compile.sh ARCH instrumented   target/image/ARCH/user-service-instrumented, which counts
#   compile.sh ARCH PROFILE        target/image/ARCH/user-service, optimised by such counts, and
#                                  user-service.profdata, a copy of the profile
set -eu
arch=$1 profile=$2
case $arch in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
*) echo "no image for $arch: it must be amd64 or arm64" >&2; exit 1 ;;
esac
target=$cpu-unknown-linux-musl
upper=$(echo "$target" | tr 'a-z-' 'A-Z_')
lower=$(echo "$target" | tr '-' '_')
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target_dir/image/$arch

# musl-dev's specs make an ordinary gcc, native or not, compile against musl. Rust
# brings its own musl to link with.
export "CC_$lower=$cpu-linux-gnu-gcc"
export "AR_$lower=$cpu-linux-gnu-ar"
cflags=-specs=/usr/lib/$cpu-linux-musl/musl-gcc.specs
export "CARGO_TARGET_${upper}_LINKER=$cpu-linux-gnu-gcc"

if [ "$arch" = arm64 ]; then
    # gcc's own choice between kinds of atomics asks what musl does not answer.
    cflags="$cflags -mno-outline-atomics"
    # jemalloc lists the headers that it needs without the flags above.
    export "${upper}_CPPFLAGS=-isystem /usr/include/$cpu-linux-musl"
    # Kernels there have pages of up to 64 KiB, and jemalloc serves no larger ones
    # than it was built for.
    export JEMALLOC_SYS_WITH_LG_PAGE=16
fi

# The same sources give the same bytes in any folder: paths are named by what they are. Of
# several maps that fit a path, the compilers take the last one.
cargo_home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
flags="${RUSTFLAGS:-}"
for map in "$PWD=/src" "$target_dir=/target" "$cargo_home=/cargo"; do
    cflags="$cflags -ffile-prefix-map=$map"
    flags="$flags --remap-path-prefix=$map"
done
export "CFLAGS_$lower=$cflags"

# The binary lists its dependencies, compressed, for scanners: `cargo audit bin`, trivy,
# grype. It is cargo-auditable's wrapper without the command, which would hand cargo the
# wrapper's whole path, and cargo derives the names of symbols from that.
export PATH="$target_dir/tools/bin:$PATH"
export RUSTC_WORKSPACE_WRAPPER=cargo-auditable
export CARGO_AUDITABLE_ORIG_ARGS='{"offline":false,"locked":true,"frozen":false,"config":[]}'

# What a thread keeps to hand out again is looked through after so many bytes. By
# default it is 64 KiB, which is every twentieth call or so.
export JEMALLOC_SYS_WITH_MALLOC_CONF=tcache_gc_incr_bytes:1048576

mkdir -p "$out"
binary=$out/user-service
case $profile in
plain) ;;
instrumented)
    binary=$out/user-service-instrumented
    flags="$flags -Cprofile-generate=$out/counts"
    ;;
*)
    # Cargo compares the path of a profile and not its contents, so its name follows from them.
    used=$out/$(sha256sum "$profile" | cut -c 1-16).profdata
    if [ ! -e "$used" ]; then
        cp "$profile" "$used.new"
        mv "$used.new" "$used"
    fi
    link_map=$out/link.map
    flags="$flags -Cprofile-use=$used -Clink-arg=-Wl,-Map=$link_map"
    ;;
esac
export RUSTFLAGS="$flags"

cargo build --locked --release --target "$target" --bin user-service

# rustc ignores a profile that it cannot read, and says nothing. Only a profile makes
# functions hot, and those are in sections with that name.
if [ -n "${link_map:-}" ]; then
    hot=$(grep -c '^ \.text\.hot\.' "$link_map" || true)
    echo "$binary: $hot functions are hot by the profile"
    if [ "$hot" -lt 20 ]; then
        echo "rustc has not used $profile" >&2
        exit 1
    fi
fi
cp "$target_dir/$target/release/user-service" "$binary"
case $profile in
plain) rm -f "$binary.profdata" ;;
instrumented) ;;
*) cp "$used" "$binary.profdata" ;;
esac
