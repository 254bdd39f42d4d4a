// What is tested is what ships: the compiled files in dist/. `npm test` builds first.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['dist/test/**/*.test.js'],
    exclude: ['dist/test/crash/**'],
    setupFiles: ['dist/test/answers.js'],
    pool: 'forks',
    maxWorkers: 2,
    // Generous: the tests start real engines on small machines. No test asserts a time.
    testTimeout: 180_000,
    hookTimeout: 120_000,
    reporters: ['default'],
  },
})
