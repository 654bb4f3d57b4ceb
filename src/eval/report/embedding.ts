import { UMAP } from 'umap-js'
import { Random } from '../../data/random.js'
import type { ScatterPoint } from './charts.js'

/*
 * Embeddings in two dimensions by UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426).
 */

export interface Embedding {
  /** [N, D], row by row. */
  readonly features: Float32Array
  readonly dimensions: number
  /** [N] what tells the points apart: classes, or findings. */
  readonly groups: readonly string[]
}

/** More than these are not told apart on paper, and take minutes. */
export const MOST_POINTS = 1500
const LEAST_POINTS = 5

/**
 * Points for a figure, alike for a seed; of more than 1,500 that many drawn at random. Null for fewer than five. By cosine:
 * rows are brought to length 1.
 */
export async function projectEmbedding(
  { features, dimensions, groups }: Embedding,
  seed = 0,
): Promise<ScatterPoint[] | null> {
  if (features.length !== dimensions * groups.length) {
    throw new RangeError(
      `report: expected ${groups.length} x ${dimensions} features, but received ${features.length}; give a row for each group`,
    )
  }
  if (groups.length < LEAST_POINTS) return null
  const rows = new Random(seed, 'embedding', 'rows')
    .shuffle(groups.map((_, row) => row))
    .slice(0, MOST_POINTS)
    .sort((a, b) => a - b)
  const points = rows.map((row) => {
    const values = Array.from(features.subarray(row * dimensions, (row + 1) * dimensions))
    const length = Math.hypot(...values)
    if (!Number.isFinite(length)) throw new RangeError(`report: expected finite features, but row ${row} is not`)
    return length === 0 ? values : values.map((value) => value / length)
  })
  const random = new Random(seed, 'embedding', 'umap')
  const umap = new UMAP({ nNeighbors: Math.min(15, points.length - 1), minDist: 0.1, random: () => random.uniform() })
  const epochs = umap.initializeFit(points)
  for (let epoch = 0; epoch < epochs; epoch += 1) {
    umap.step()
    // fitAsync would wait for a timer after each of some hundred epochs
    if (epoch % 10 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  const placed = umap.getEmbedding()
  // in the order of the rows, which no group has to itself: sorted, the last would cover the others
  return placed.map(([x, y], k) => ({ x: x!, y: y!, group: groups[rows[k]!]! }))
}
