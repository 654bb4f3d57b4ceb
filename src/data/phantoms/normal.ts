/*
 * The little of the normal distribution that drawing correlated labels needs.
 */

/** P(Z <= z) of a standard normal variable; absolute error below 1e-7 (Abramowitz and Stegun 7.1.26). */
export function normalCdf(z: number): number {
  const x = Math.abs(z) / Math.SQRT2
  const t = 1 / (1 + 0.3275911 * x)
  const tail =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * Math.exp(-x * x)
  return z < 0 ? tail / 2 : 1 - tail / 2
}

/** Where a rising function reaches a value, by halving. */
function solve(rising: (x: number) => number, value: number, low: number, high: number): number {
  for (let step = 0; step < 50; step += 1) {
    const middle = (low + high) / 2
    if (rising(middle) < value) low = middle
    else high = middle
  }
  return (low + high) / 2
}

/** The threshold that a standard normal variable passes with the given probability. */
export function thresholdOf(probability: number): number {
  return solve((z) => 1 - normalCdf(-z), 1 - probability, -8, 8)
}

/** P(X > a and Y > b) of two standard normal variables with the given correlation: Plackett's integral (1954), by Simpson's rule. */
export function bothAbove(a: number, b: number, correlation: number): number {
  const density = (r: number) =>
    Math.exp(-(a * a - 2 * r * a * b + b * b) / (2 * (1 - r * r))) / (2 * Math.PI * Math.sqrt(1 - r * r))
  const intervals = 40
  const width = correlation / intervals
  let sum = density(0) + density(correlation)
  for (let index = 1; index < intervals; index += 1) sum += (index % 2 === 1 ? 4 : 2) * density(index * width)
  return (1 - normalCdf(a)) * (1 - normalCdf(b)) + (sum * width) / 3
}

/** The correlation at which two standard normal variables pass their thresholds together with the given probability. */
export function tetrachoric(a: number, b: number, together: number): number {
  return solve((correlation) => bothAbove(a, b, correlation), together, -0.98, 0.98)
}

/**
 * The lower triangle L with L Lᵀ = matrix (Cholesky). Where no such exists, since the entries were estimated one by one,
 * the entries off the diagonal are made smaller together until one does.
 */
export function cholesky(matrix: readonly (readonly number[])[]): number[][] {
  for (let scale = 1; ; scale *= 0.98) {
    const lower = matrix.map((row) => row.map(() => 0))
    let definite = true
    for (const [i, row] of matrix.entries()) {
      for (let j = 0; j <= i && definite; j += 1) {
        let rest = i === j ? row[j]! : scale * row[j]!
        for (let k = 0; k < j; k += 1) rest -= lower[i]![k]! * lower[j]![k]!
        if (i !== j) lower[i]![j] = rest / lower[j]![j]!
        else if (rest > 1e-6) lower[i]![j] = Math.sqrt(rest)
        else definite = false
      }
    }
    if (definite) return lower
  }
}
