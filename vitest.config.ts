import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Processes, not threads: libtorch's state is the process's, and a crash then names its file.
    pool: 'forks',
    // A core each; unless told, one would be left to vitest itself, which is half of two.
    maxWorkers: availableParallelism(),
    // Several test files run at once: one thread each, or their threads wait for one another.
    env: { OMP_NUM_THREADS: '1' },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
