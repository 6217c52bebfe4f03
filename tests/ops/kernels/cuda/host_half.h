// Half precision by its bits, rounded to nearest even, as the prelude's instructions do.
#pragma GCC system_header
static inline float widen(f16 x) {
    u32 sign = (u32)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ff;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) {
        float y = (float)fraction * 0x1p-24f;
        return sign ? -y : y;
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
static inline float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
static inline void narrow(float x, f16* y) {
    u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) {
        y->bits = 0x7fff;
    } else if (rest >= 0x477ff000) {  // 65520 and beyond
        y->bits = (u16)(sign | 0x7c00);
    } else if (rest < 0x38800000) {  // below 2^-14: a multiple of 2^-24
        float scaled = __uint_as_float(rest) * 0x1p24f;
        y->bits = (u16)(sign | (u32)rintf(scaled));
    } else {
        rest += 0xfff + (rest >> 13 & 1);
        y->bits = (u16)(sign | (rest - (112u << 23)) >> 13);
    }
}
static inline void narrow(float x, bf16* y) {
    u32 bits = __float_as_uint(x);
    y->bits = (u16)(x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
