export * from './asked.js'
export * from './chest.js'
export * from './embed.js'
export { words } from './words.js'
