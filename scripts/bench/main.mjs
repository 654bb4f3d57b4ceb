// npm run bench -- NAME [options] [--json]: one benchmark, a row a line. Exit status 1 where a measurement failed.
import { readdirSync } from 'node:fs'

const [name, ...rest] = process.argv.slice(2)
const known = readdirSync(new URL('.', import.meta.url))
  .filter((file) => file.startsWith('bench-') && file.endsWith('.mjs'))
  .map((file) => file.slice('bench-'.length, -'.mjs'.length))
if (!known.includes(name)) {
  console.error(
    `expected the name of a benchmark (${known.join(', ')}), but received ${name === undefined ? 'none' : `'${name}'`}`,
  )
  process.exit(1)
}
try {
  const { run } = await import(`./bench-${name}.mjs`)
  await run({ json: rest.includes('--json'), args: rest })
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
