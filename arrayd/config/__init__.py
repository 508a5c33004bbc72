"""The configuration: one YAML file to typed, frozen values; every mistake names file, key, value and what was expected.

`document` reads YAML without its surprises, `values` reads single values, `section` is what sections are made of,
`validation` tells what is wrong with them, `mistakes` how a user reads that. A host's tool reads its own file by these.
`schema` says which keys the array's file has, `references` and `load` put them together and check what no single key
can know; `part` reads what a command says in place of the file.

Each is imported by its own name: building the schema takes longer than all that a host does with its file.
"""
