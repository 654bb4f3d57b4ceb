export { TableError } from './bytes.js'
export { identifierOf, isMissing, numberOf } from './cells.js'
export { openTable, requireColumns, type Table, type TableRow } from './table.js'
