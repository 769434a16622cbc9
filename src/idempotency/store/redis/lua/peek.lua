local claim = read()
if claim then
  return describe(claim)
end
return {'absent', text(resolved())}
