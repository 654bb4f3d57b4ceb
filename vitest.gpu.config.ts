import { defineConfig } from 'vitest/config'

/** What needs a GPU: npm run test:gpu. One file at a time, since memory is measured. */
export default defineConfig({
  test: {
    include: ['test/gpu/**/*.gpu.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
})
