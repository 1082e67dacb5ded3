#!/bin/sh
# Compiles check and micro_benchmark, which run the kernels alone:
#     native/kernels/tools.sh OUT INCLUDE [COMPILER]
# OUT: folder for the programs; INCLUDE: where ggml's headers are (site-packages/include); COMPILER: c++, or a cross compiler such as
# aarch64-linux-gnu-g++ (check alone, linked statically, for qemu-aarch64 -cpu max).
set -eu
out=$1 include=$2 compiler=${3:-c++}
mkdir -p "$out"
cd "$(dirname "$0")"
compile() {
    name=$1
    shift
    "$compiler" -std=c++17 -O3 -ffp-contract=off -falign-functions=64 -I "$include" "$machine" "$@" -c "$name.cpp" -o "$out/$name.o"
}
case $("$compiler" -dumpmachine) in
x86_64*)
    machine=-DRIM_KERNELS_X86
    avx2="-mavx2 -mfma -mf16c"
    avx512="$avx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni"
    kernels="avx2 avx2_bf16 avx_vnni avx512_vnni avx512_bf16 amx_bf16"
    compile avx2 $avx2
    compile avx2_bf16 $avx2
    compile avx_vnni $avx2 -mavxvnni
    compile avx512_vnni $avx512
    compile avx512_bf16 $avx512 -mavx512bf16
    compile amx_bf16 $avx512 -mavx512bf16
    programs="check micro_benchmark"
    static=
    ;;
aarch64* | arm64*)
    machine=-DRIM_KERNELS_NEON
    kernels="neon neon_i8mm"
    compile neon -march=armv8.2-a+dotprod
    compile neon_i8mm -march=armv8.2-a+dotprod+i8mm
    programs=check
    static=-static
    ;;
*)
    echo "tools.sh: no kernels for $("$compiler" -dumpmachine)" >&2
    exit 1
    ;;
esac
objects=
for name in kernel instructions layout; do compile $name; done
for name in kernel instructions layout $kernels; do objects="$objects $out/$name.o"; done
for program in $programs; do
    compile $program
    "$compiler" $static "$out/$program.o" $objects -o "$out/$program"
done
