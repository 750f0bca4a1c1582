"""The routes, one module a resource. A route is its signature: no SQL, no try, no commit."""
