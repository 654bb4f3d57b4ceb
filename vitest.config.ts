import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Processes, not threads: libtorch's state is the process's, and a crash then names its file.
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
