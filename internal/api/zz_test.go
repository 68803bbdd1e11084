package api
import ("testing";"net/http/httptest";"os")
type dv Devices
type ow Ownership
type stub struct{ dv; ow }
func TestZZ(t *testing.T){
 s,err:=New(Options{Services:Services{Devices:stub{},Ownership:stub{}}})
 if err!=nil{t.Fatal(err)}
 w:=httptest.NewRecorder()
 s.Handler().ServeHTTP(w,httptest.NewRequest("GET","/api/v1/openapi.json",nil))
 os.WriteFile("/tmp/openapi.json",w.Body.Bytes(),0o644)
 for _,r:=range [][2]string{{"GET","/x"},{"PATCH","/api/v1/devices"},{"GET","/api/v1/devices"},{"GET","/api/v1//devices"}}{
 w=httptest.NewRecorder()
 s.Handler().ServeHTTP(w,httptest.NewRequest(r[0],r[1],nil))
 t.Log(w.Code,w.Header(),w.Body)
 }
}
